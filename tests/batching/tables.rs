//! What batches of real models cost, as recorded on one core: milliseconds a row by batch size.

use crate::simulator::Recorded;

/// The reference model, texts of 32 and of 128 tokens: a batch pays, up to eight rows a good deal.
pub(crate) const TOPIC: Recorded = Recorded {
    sizes: &[1.0, 4.0, 8.0, 16.0, 32.0],
    rows: &[(32.0, &[1.2, 0.8, 0.75, 0.7, 0.7]), (128.0, &[2.8, 1.8, 1.49, 1.44, 1.47])],
};
/// A classifier of files: a batch of four pays a little, larger ones cost.
pub(crate) const MAGIKA: Recorded =
    Recorded { sizes: &[1.0, 4.0, 16.0, 64.0], rows: &[(1.0, &[13.8, 13.2, 19.8, 33.0])] };
/// A ResNet-50: every batch costs.
pub(crate) const OPENNSFW: Recorded =
    Recorded { sizes: &[1.0, 4.0, 16.0, 64.0], rows: &[(1.0, &[41.0, 76.0, 125.0, 116.0])] };
/// A small convolutional model: every batch costs.
pub(crate) const PPOCR: Recorded = Recorded { sizes: &[1.0, 4.0, 16.0, 64.0], rows: &[(1.0, &[3.1, 6.9, 7.5, 6.8])] };
/// Dense layers: the larger, the better.
pub(crate) const MLP: Recorded = Recorded { sizes: &[1.0, 4.0, 16.0, 64.0], rows: &[(1.0, &[0.5, 0.25, 0.16, 0.14])] };
