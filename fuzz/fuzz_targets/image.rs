//! Any bytes as an image: decoded within the bounds to one row of the model's size, or refused.
//!
//! The first byte chooses layout, channels and way of resizing.
#![no_main]

use inferq::preprocess::{Channels, Filter, ImageSpec, Layout, Preprocessor, Resize};
use inferq::protocol::request::{InferInput, InferenceRequest};
use inferq::protocol::tensor::{Tensor, TensorData};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, file)) = bytes.split_first() else { return };
    let spec = ImageSpec {
        input: "pixels".to_owned(),
        width: 17,
        height: 23,
        layout: if choice & 1 == 0 { Layout::Nchw } else { Layout::Nhwc },
        channels: [Channels::Rgb, Channels::Bgr, Channels::Gray][usize::from(choice >> 1) % 3],
        resize: if choice & 32 == 0 { Resize::Exact } else { Resize::Cover },
        resize_to: None,
        filter: Filter::default(),
        scale: 1.0 / 255.0,
        mean: Vec::new(),
        std: Vec::new(),
        max_image_bytes: 1 << 16,
        max_pixels: 1 << 18,
    };
    let tensor = Tensor::new(vec![1], TensorData::Bytes(vec![file.to_vec()])).expect("one element");
    let input = InferInput { name: "image".to_owned(), tensor, binary_data: false };
    let request =
        InferenceRequest { id: None, parameters: serde_json::Map::new(), inputs: vec![input], outputs: Vec::new() };
    if let Ok(rows) = Preprocessor::Image(Box::new(spec)).prepare(request) {
        assert_eq!(rows.len(), 1);
    }
});
