//! Resizing as Pillow does it, to the last bit: a filter as wide as the scale asks for, in whole numbers, first along rows,
//! then along columns. A model that was trained on images that Pillow made sees the same ones here.
//!
//! Pillow does so up to version 12; version 13 begins with the columns where that is less work, and differs by one level in some
//! pixels then.

use serde::{Deserialize, Serialize};

/// Bits behind the point of a weight: what is left of 32 once a pixel and two bits of overshoot are taken off.
const PRECISION: u32 = 32 - 8 - 2;

/// How a pixel is made of those around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// The nearest one.
    Nearest,
    /// A triangle.
    #[default]
    Bilinear,
    /// A cubic with a = -0.5.
    Bicubic,
}

impl Filter {
    /// How far it reaches at a scale of 1.
    const fn support(self) -> f64 {
        match self {
            Self::Nearest => 0.0,
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    fn weight(self, distance: f64) -> f64 {
        const A: f64 = -0.5;
        let x = distance.abs();
        match self {
            Self::Nearest => 1.0,
            Self::Bilinear => (1.0 - x).max(0.0),
            Self::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
            Self::Bicubic => 0.0,
        }
    }
}

/// What one pixel is made of: from where on, and how much of each.
struct Window {
    first: usize,
    weights: Vec<i64>,
}

/// An image of bytes, `channels` for each pixel, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pixels {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) channels: usize,
    pub(super) bytes: Vec<u8>,
}

impl Pixels {
    /// The image with another width and height.
    pub(super) fn resized(self, width: usize, height: usize, filter: Filter) -> Self {
        let wide = if width == self.width { self } else { self.with_width(width, filter) };
        if height == wide.height { wide } else { wide.with_height(height, filter) }
    }

    /// The part of `width` by `height` in the middle; as torchvision rounds it, halves to the even.
    pub(super) fn centre(self, width: usize, height: usize) -> Self {
        let offset = |whole: usize, part: usize| {
            let rest = whole.saturating_sub(part);
            if rest % 4 == 3 { rest.div_ceil(2) } else { rest / 2 }
        };
        let (left, top) = (offset(self.width, width), offset(self.height, height));
        let rows = self.bytes.chunks_exact((self.width * self.channels).max(1)).skip(top).take(height);
        let part = left * self.channels..(left + width) * self.channels;
        let bytes = rows.flat_map(|row| row.get(part.clone()).unwrap_or_default()).copied().collect();
        Self { width, height, channels: self.channels, bytes }
    }

    fn with_width(self, width: usize, filter: Filter) -> Self {
        let windows = windows(self.width, width, filter);
        let mut bytes = Vec::with_capacity(width * self.height * self.channels);
        for row in self.bytes.chunks_exact((self.width * self.channels).max(1)) {
            for Window { first, weights } in &windows {
                let part = row.get(first * self.channels..).unwrap_or_default();
                for channel in 0..self.channels {
                    let own = part.iter().skip(channel).step_by(self.channels);
                    bytes
                        .push(clipped(weights.iter().zip(own).map(|(weight, pixel)| weight * i64::from(*pixel)).sum()));
                }
            }
        }
        Self { width, bytes, ..self }
    }

    fn with_height(self, height: usize, filter: Filter) -> Self {
        let stride = (self.width * self.channels).max(1);
        let mut bytes = Vec::with_capacity(height * stride);
        for Window { first, weights } in windows(self.height, height, filter) {
            let mut sums = vec![0_i64; stride];
            for (weight, row) in weights.iter().zip(self.bytes.chunks_exact(stride).skip(first)) {
                for (sum, pixel) in sums.iter_mut().zip(row) {
                    *sum += weight * i64::from(*pixel);
                }
            }
            bytes.extend(sums.into_iter().map(clipped));
        }
        Self { height, bytes, ..self }
    }
}

fn clipped(sum: i64) -> u8 {
    let rounded = (sum + (1 << (PRECISION - 1))) >> PRECISION;
    u8::try_from(rounded.clamp(0, 255)).unwrap_or(u8::MAX)
}

fn windows(from: usize, to: usize, filter: Filter) -> Vec<Window> {
    let scale = from as f64 / to as f64;
    (0..to)
        .map(|at| if filter == Filter::Nearest { nearest(from, scale, at) } else { window(from, scale, at, filter) })
        .collect()
}

fn nearest(from: usize, scale: f64, at: usize) -> Window {
    let first = (((at as f64 + 0.5) * scale) as usize).min(from.saturating_sub(1));
    Window { first, weights: vec![1 << PRECISION] }
}

fn window(from: usize, scale: f64, at: usize, filter: Filter) -> Window {
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    let centre = (at as f64 + 0.5) * scale;
    let first = (centre - support + 0.5).max(0.0) as usize;
    let end = ((centre + support + 0.5) as usize).min(from);
    let weights: Vec<f64> = (first..end).map(|x| filter.weight((x as f64 - centre + 0.5) * (1.0 / stretch))).collect();
    let sum: f64 = weights.iter().sum();
    let fixed = |weight: f64| {
        let weight = if sum == 0.0 { weight } else { weight / sum };
        (weight * f64::from(1_u32 << PRECISION)).round() as i64
    };
    Window { first, weights: weights.into_iter().map(fixed).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halving_a_line_weighs_neighbours_by_a_triangle() {
        let line = Pixels { width: 4, height: 1, channels: 1, bytes: vec![0, 0, 200, 200] };
        // Pillow: Image.frombytes("L", (4, 1), bytes([0, 0, 200, 200])).resize((2, 1), BILINEAR) is 29, 171.
        assert_eq!(line.resized(2, 1, Filter::Bilinear).bytes, [29, 171]);
    }

    #[test]
    fn the_middle_is_rounded_to_the_even() {
        let line = |width: usize| Pixels { width, height: 1, channels: 1, bytes: (0..width as u8).collect() };
        // (5 - 2) / 2 = 1.5 is 2, (7 - 2) / 2 = 2.5 is 2.
        assert_eq!(line(5).centre(2, 1).bytes, [2, 3]);
        assert_eq!(line(7).centre(2, 1).bytes, [2, 3]);
        assert_eq!(line(6).centre(2, 1).bytes, [2, 3]);
    }
}
