//! Whether a model is as sure as it is right: reliability in bins, and what that comes to in one figure. Pure.

use serde::Serialize;

use super::scores::ratio;

/// Bins of equal width between 0 and 1.
const BINS: usize = 15;
/// The least probability that a logarithm is taken of.
const LEAST: f64 = 1e-12;

/// A text's probabilities, the class that it has, and whether the best class is that.
#[derive(Debug)]
pub(super) struct Sure {
    pub(super) probabilities: Vec<f64>,
    pub(super) truth: usize,
    pub(super) confidence: f64,
    pub(super) is_right: bool,
}

/// The texts of which a model was about as sure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bin {
    /// The least confidence.
    pub from: f64,
    /// The confidence that it ends below (the last one ends with 1).
    pub to: f64,
    /// Texts in it.
    pub texts: usize,
    /// Their mean confidence.
    pub confidence: f64,
    /// The share of them that was given its class.
    pub accuracy: f64,
}

/// How sure a model is, against how right.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Calibration {
    /// Expected calibration error: the mean distance of confidence and accuracy, bin by bin (Guo et al. 2017).
    pub ece: f64,
    /// Mean squared distance of the probabilities from the truth, over classes and texts (Brier 1950).
    pub brier: f64,
    /// Mean negative logarithm of the probability of the truth.
    pub log_loss: f64,
    /// The bins.
    pub bins: Vec<Bin>,
}

pub(super) fn calibration(all: &[Sure]) -> Calibration {
    let bin_of = |sure: &Sure| ((sure.confidence * BINS as f64) as usize).min(BINS - 1);
    let bins: Vec<Bin> = (0..BINS)
        .map(|bin| {
            let own: Vec<&Sure> = all.iter().filter(|sure| bin_of(sure) == bin).collect();
            Bin {
                from: ratio(bin, BINS),
                to: ratio(bin + 1, BINS),
                texts: own.len(),
                confidence: mean(own.iter().map(|sure| sure.confidence)),
                accuracy: ratio(own.iter().filter(|sure| sure.is_right).count(), own.len()),
            }
        })
        .collect();
    let ece = bins.iter().map(|bin| ratio(bin.texts, all.len()) * (bin.confidence - bin.accuracy).abs()).sum();
    let brier = |sure: &Sure| {
        let distance = |(class, p): (usize, &f64)| (p - f64::from(u8::from(class == sure.truth))).powi(2);
        sure.probabilities.iter().enumerate().map(distance).sum::<f64>()
    };
    let log_loss = |sure: &Sure| -sure.probabilities.get(sure.truth).copied().unwrap_or(0.0).max(LEAST).ln();
    Calibration { ece, brier: mean(all.iter().map(brier)), log_loss: mean(all.iter().map(log_loss)), bins }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0_usize), |(sum, count), value| (sum + value, count + 1));
    if count == 0 { 0.0 } else { sum / count as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sure(confidence: f64, is_right: bool) -> Sure {
        let probabilities = vec![confidence, 1.0 - confidence];
        Sure { probabilities, truth: usize::from(!is_right), confidence, is_right }
    }

    #[test]
    fn a_model_that_is_as_sure_as_right_has_no_error() {
        let all: Vec<Sure> = (0..10).map(|i| sure(0.8, i < 8)).collect();
        let calibration = calibration(&all);
        assert!(calibration.ece < 1e-9, "{}", calibration.ece);
        // 8 of 10 are 0.2 off in both classes, 2 of 10 are 0.8 off.
        assert!((calibration.brier - (0.8 * 0.08 + 0.2 * 1.28)).abs() < 1e-9);
        assert!((calibration.log_loss + 0.8 * 0.8_f64.ln() + 0.2 * 0.2_f64.ln()).abs() < 1e-9);
    }

    #[test]
    fn the_error_is_weighed_by_the_texts_of_each_bin() {
        // Three texts at 0.95, all right: 0.05 off. One at 0.55, wrong: 0.55 off.
        let all = [sure(0.95, true), sure(0.95, true), sure(0.95, true), sure(0.55, false)];
        let calibration = calibration(&all);
        assert!((calibration.ece - (0.75 * 0.05 + 0.25 * 0.55)).abs() < 1e-9, "{}", calibration.ece);
        assert_eq!(calibration.bins.iter().map(|bin| bin.texts).sum::<usize>(), 4);
        assert_eq!(super::calibration(&[sure(1.0, true)]).bins[14].texts, 1, "certainty is in the last bin");
    }
}
