//! Against what Pillow and numpy made of the same files (`tests/fixtures/images/make.py`).

use proptest::prelude::*;

use super::*;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/images");

/// How far a decoded JPEG may be from libjpeg-turbo's, in levels of 255: another inverse transform, another way from half of the
/// colours to all of them.
const JPEG_BOUND: u8 = 6;
/// The same on average.
const JPEG_MEAN_BOUND: f64 = 0.7;
/// The same once resized: neighbours make up for each other.
const RESIZED_JPEG_BOUND: u8 = 3;

fn spec() -> ImageSpec {
    ImageSpec {
        input: "x".into(),
        width: 32,
        height: 24,
        layout: Layout::Nhwc,
        channels: Channels::Rgb,
        resize: Resize::Exact,
        resize_to: None,
        filter: Filter::Bilinear,
        scale: 1.0,
        mean: Vec::new(),
        std: Vec::new(),
        max_image_bytes: 1 << 20,
        max_pixels: 10_000,
    }
}

fn read(name: &str) -> Vec<u8> {
    std::fs::read(format!("{FIXTURES}/{name}")).unwrap()
}

fn elements(spec: &ImageSpec, file: &[u8]) -> Vec<f32> {
    let row = spec.row(0, file).unwrap();
    match row.inputs[0].elements() {
        TensorData::Fp32(elements) => elements.clone(),
        other => panic!("{other:?}"),
    }
}

/// The bytes that `spec` makes of `file`, in Pillow's order.
fn bytes(spec: &ImageSpec, file: &str) -> Vec<u8> {
    elements(spec, &read(file)).into_iter().map(|value| value as u8).collect()
}

#[test]
fn what_is_resized_is_what_pillow_makes_to_the_last_bit() {
    for (word, filter) in [("nearest", Filter::Nearest), ("bilinear", Filter::Bilinear), ("bicubic", Filter::Bicubic)] {
        let spec = ImageSpec { filter, ..spec() };
        for file in ["colours", "tall"] {
            assert_eq!(
                bytes(&spec, &format!("{file}.png")),
                read(&format!("{file}-exact-{word}.bin")),
                "{file} {word}"
            );
        }
    }
    for (file, side) in [("colours", 40), ("tall", 33)] {
        let spec = ImageSpec { resize: Resize::Cover, resize_to: Some(side), ..spec() };
        assert_eq!(bytes(&spec, &format!("{file}.png")), read(&format!("{file}-cover.bin")), "{file}");
    }
    let gray = ImageSpec { channels: Channels::Gray, ..spec() };
    assert_eq!(bytes(&gray, "colours.png"), read("colours-gray.bin"));
}

#[test]
fn every_kind_of_png_becomes_red_green_and_blue() {
    for file in ["gray", "alpha", "palette"] {
        assert_eq!(bytes(&spec(), &format!("{file}.png")), read(&format!("{file}-rgb.bin")), "{file}");
    }
}

#[test]
fn a_jpeg_is_pillows_within_the_stated_bound() {
    let distances = |ours: &[u8], theirs: &[u8]| -> (u8, f64) {
        assert_eq!(ours.len(), theirs.len());
        let distances: Vec<u8> = ours.iter().zip(theirs).map(|(a, b)| a.abs_diff(*b)).collect();
        let sum: f64 = distances.iter().map(|distance| f64::from(*distance)).sum();
        (distances.iter().copied().max().unwrap(), sum / distances.len() as f64)
    };
    let decoded = spec().decode(0, &read("photo.jpg")).unwrap();
    let (worst, mean) = distances(&decoded.bytes, &read("photo-decoded.bin"));
    println!("decoded: at most {worst}, on average {mean:.3}");
    assert!(worst <= JPEG_BOUND && mean <= JPEG_MEAN_BOUND, "at most {worst}, on average {mean}");
    let (worst, mean) = distances(&bytes(&spec(), "photo.jpg"), &read("photo-exact.bin"));
    println!("resized: at most {worst}, on average {mean:.3}");
    assert!(worst <= RESIZED_JPEG_BOUND && mean <= JPEG_MEAN_BOUND, "at most {worst}, on average {mean}");
}

#[test]
fn channels_are_normalised_and_laid_out_as_the_graph_takes_them() {
    let raw = elements(&spec(), &read("colours.png"));
    let (mean, std) = (vec![0.485, 0.456, 0.406], vec![0.229, 0.224, 0.225]);
    let usual = ImageSpec { layout: Layout::Nchw, scale: 1.0 / 255.0, mean: mean.clone(), std: std.clone(), ..spec() };
    let planes = elements(&usual, &read("colours.png"));
    let reversed = elements(&ImageSpec { channels: Channels::Bgr, ..usual.clone() }, &read("colours.png"));
    let size = 32 * 24;
    for at in 0..size {
        for channel in 0..3 {
            let expected = (raw[at * 3 + channel] / 255.0 - mean[channel]) / std[channel];
            assert!((planes[channel * size + at] - expected).abs() < 1e-5);
            let expected = (raw[at * 3 + 2 - channel] / 255.0 - mean[channel]) / std[channel];
            assert!((reversed[channel * size + at] - expected).abs() < 1e-5);
        }
    }
    assert_eq!(usual.row(0, &read("colours.png")).unwrap().inputs[0].shape(), [3, 24, 32]);
}

#[test]
fn faults_name_the_row_and_pixels_are_bounded_before_they_are_decoded() {
    let small = ImageSpec { max_pixels: 61 * 47 - 1, ..spec() };
    let error = small.row(3, &read("colours.png")).unwrap_err();
    assert_eq!(error.code, ErrorCode::InputTooLarge);
    assert_eq!(error.message, "row 3 of input `image` has 61 x 47 = 2867 pixels, at most 2866 are taken (max_pixels)");
    // A header that promises two thousand million pixels in a file of a hundred bytes.
    let mut bomb = read("colours.png");
    bomb[16..24].copy_from_slice(&[0, 0, 0xb0, 0, 0, 0, 0xb0, 0]);
    assert_ne!(spec().row(0, &bomb[..100]).unwrap_err().message, "");
    let whole = read("photo.jpg");
    for (file, part) in [
        (b"GIF89a".as_slice(), "row 1 of input `image` is neither PNG nor JPEG"),
        (b"", "row 1 of input `image` is neither PNG nor JPEG"),
        (&whole[..whole.len() / 8], "row 1 of input `image` is no PNG or JPEG that can be read"),
        (b"\xff\xd8\xff\xe0", "row 1 of input `image` is no PNG or JPEG that can be read: its header is broken"),
    ] {
        let error = spec().row(1, file).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidInput);
        assert!(error.message.starts_with(part), "{}", error.message);
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(at in 0_usize..2_000, byte: u8, length in 0_usize..4_000, jpeg: bool) {
        let mut file = read(if jpeg { "photo.jpg" } else { "palette.png" });
        if let Some(changed) = file.get_mut(at) {
            *changed = byte;
        }
        file.truncate(length);
        // Whatever comes of it, it is an answer.
        let _either = spec().row(0, &file);
    }
}
