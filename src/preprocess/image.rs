//! Images to rows: decoded, resized, cropped, normalised and laid out as the model was trained. The only user of the crate image.
//!
//! Called for every job of a model of images, off the async threads. The pixels are bounded before any is decoded; a fault names the
//! row, and never quotes it.

use std::io::Cursor;

use image::{ImageFormat, ImageReader, Limits};
use serde::{Deserialize, Serialize};

use super::resample::{Filter, Pixels};
use super::{byte_rows, invalid};
use crate::batch::row::Row;
use crate::error::{ErrorCode, JobError};
use crate::protocol::request::InferInput;
use crate::protocol::tensor::{Tensor, TensorData};

/// `[preprocess]` of a model of images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageSpec {
    /// The graph's input: FP32, four axes.
    pub input: String,
    /// Pixels along a row of what the graph takes.
    pub width: usize,
    /// Its rows.
    pub height: usize,
    /// The order of its axes.
    #[serde(default)]
    pub layout: Layout,
    /// Its channels.
    #[serde(default)]
    pub channels: Channels,
    /// How an image of another size becomes one of this.
    #[serde(default)]
    pub resize: Resize,
    /// With `cover`: what the shorter side becomes before the middle is cut out; the longer of width and height unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resize_to: Option<usize>,
    /// How pixels are made of others.
    #[serde(default)]
    pub filter: Filter,
    /// What a byte is multiplied with.
    #[serde(default = "to_one")]
    pub scale: f32,
    /// What is then subtracted, channel by channel; nothing where empty.
    #[serde(default)]
    pub mean: Vec<f32>,
    /// What it is then divided by; 1 where empty.
    #[serde(default)]
    pub std: Vec<f32>,
    /// Bytes of a file at most.
    pub max_image_bytes: usize,
    /// Pixels of an image at most.
    pub max_pixels: u64,
}

/// The order of an image's axes, behind the batch axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Channels, rows, columns.
    #[default]
    Nchw,
    /// Rows, columns, channels.
    Nhwc,
}

/// The channels of a pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channels {
    /// Red, green, blue.
    #[default]
    Rgb,
    /// Blue, green, red.
    Bgr,
    /// Lightness alone (ITU-R 601-2).
    Gray,
}

/// How an image becomes one of the model's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resize {
    /// Stretched to width and height.
    #[default]
    Exact,
    /// Scaled by its shorter side, then the middle cut out.
    Cover,
}

const fn to_one() -> f32 {
    1.0 / 255.0
}

impl ImageSpec {
    /// How many channels a pixel has.
    #[must_use]
    pub const fn channel_count(&self) -> usize {
        match self.channels {
            Channels::Rgb | Channels::Bgr => 3,
            Channels::Gray => 1,
        }
    }

    /// The shape of a row: what the graph's input must be, but for the batch axis.
    #[must_use]
    pub const fn row_shape(&self) -> [usize; 3] {
        match self.layout {
            Layout::Nchw => [self.channel_count(), self.height, self.width],
            Layout::Nhwc => [self.height, self.width, self.channel_count()],
        }
    }

    /// One row for each image of `input`.
    pub(super) fn prepare(&self, input: InferInput) -> Result<Vec<Row>, JobError> {
        let files = byte_rows(input, self.max_image_bytes, "max_image_bytes")?;
        files.iter().enumerate().map(|(row, file)| self.row(row, file)).collect()
    }

    fn row(&self, row: usize, file: &[u8]) -> Result<Row, JobError> {
        let pixels = self.decode(row, file)?;
        let pixels = match self.resize {
            Resize::Exact => pixels.resized(self.width, self.height, self.filter),
            Resize::Cover => self.covered(pixels),
        };
        let elements = TensorData::Fp32(self.normalised(&pixels));
        let tensor = Tensor::new(self.row_shape().to_vec(), elements).map_err(|error| invalid(error.to_string()))?;
        Ok(Row { inputs: vec![tensor], length: 1, may_be_padded: false })
    }

    fn decode(&self, row: usize, file: &[u8]) -> Result<Pixels, JobError> {
        let fault = |what: &str| invalid(format!("row {row} of input `image` {what}"));
        let is_taken = |format| matches!(format, Some(ImageFormat::Png | ImageFormat::Jpeg));
        let reader = || {
            ImageReader::new(Cursor::new(file)).with_guessed_format().ok().filter(|reader| is_taken(reader.format()))
        };
        let unknown = "is neither PNG nor JPEG";
        let (width, height) = reader()
            .ok_or_else(|| fault(unknown))?
            .into_dimensions()
            .map_err(|_| fault("is no PNG or JPEG that can be read: its header is broken"))?;
        let pixels = u64::from(width) * u64::from(height);
        if pixels > self.max_pixels {
            let most = self.max_pixels;
            let message = format!(
                "row {row} of input `image` has {width} x {height} = {pixels} pixels, at most {most} are taken (max_pixels)"
            );
            return Err(JobError::new(ErrorCode::InputTooLarge, message));
        }
        let mut reader = reader().ok_or_else(|| fault(unknown))?;
        let mut limits = Limits::default();
        // Eight bytes a pixel are the most that a decoder needs; a header may lie about the rest.
        limits.max_alloc = Some(self.max_pixels.saturating_mul(16).max(1 << 20));
        reader.limits(limits);
        let decoded = reader.decode().map_err(|_| fault("is no PNG or JPEG that can be read"))?.into_rgb8();
        let (width, height) = (decoded.width() as usize, decoded.height() as usize);
        if width == 0 || height == 0 {
            return Err(fault("has no pixels"));
        }
        let colours = Pixels { width, height, channels: 3, bytes: decoded.into_raw() };
        Ok(match self.channels {
            Channels::Rgb | Channels::Bgr => colours,
            Channels::Gray => gray(&colours),
        })
    }

    /// Scaled by the shorter side, as torchvision's `Resize` does it, then the middle.
    fn covered(&self, pixels: Pixels) -> Pixels {
        let side = self.resize_to.unwrap_or(self.width.max(self.height));
        let (width, height) = (pixels.width, pixels.height);
        let (width, height) =
            if width <= height { (side, side * height / width) } else { (side * width / height, side) };
        pixels.resized(width, height, self.filter).centre(self.width, self.height)
    }

    fn normalised(&self, pixels: &Pixels) -> Vec<f32> {
        let count = self.channel_count();
        let channels: Vec<usize> = match self.channels {
            Channels::Bgr => (0..count).rev().collect(),
            Channels::Rgb | Channels::Gray => (0..count).collect(),
        };
        // The mean and deviation belong to the graph's channels, whatever the file's order.
        let factors: Vec<(f32, f32)> = (0..count)
            .map(|at| (self.mean.get(at).copied().unwrap_or(0.0), self.std.get(at).copied().unwrap_or(1.0)))
            .collect();
        let value = |byte: u8, (mean, std): (f32, f32)| (f32::from(byte) * self.scale - mean) / std;
        let planes = channels.iter().zip(&factors);
        match self.layout {
            Layout::Nchw => planes
                .flat_map(|(channel, factor)| {
                    let plane = pixels.bytes.iter().skip(*channel).step_by(count);
                    plane.map(move |byte| value(*byte, *factor))
                })
                .collect(),
            Layout::Nhwc => pixels
                .bytes
                .chunks_exact(count)
                .flat_map(|pixel| {
                    let of = |(channel, factor): (&usize, &(f32, f32))| {
                        value(pixel.get(*channel).copied().unwrap_or_default(), *factor)
                    };
                    planes.clone().map(of).collect::<Vec<f32>>()
                })
                .collect(),
        }
    }
}

/// Lightness after ITU-R 601-2, as Pillow's `convert("L")` rounds it.
fn gray(colours: &Pixels) -> Pixels {
    let one = |pixel: &[u8]| {
        let weighed = pixel.iter().zip([19_595_u32, 38_470, 7_471]).map(|(byte, weight)| u32::from(*byte) * weight);
        ((weighed.sum::<u32>() + 0x8000) >> 16) as u8
    };
    Pixels { channels: 1, bytes: colours.bytes.chunks_exact(3).map(one).collect(), ..colours.clone() }
}

#[cfg(test)]
#[path = "image_tests.rs"]
mod tests;
