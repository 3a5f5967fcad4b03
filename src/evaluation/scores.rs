//! Accuracy, precision, recall, F1 and who is taken for whom. Pure arithmetic.

use serde::Serialize;

/// A text as it is judged: the class it has, and the class it was given, if any.
pub(super) type Judged = (usize, Option<usize>);

/// What became of one class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassScores {
    /// The class.
    pub label: String,
    /// Of the texts that were given it, how many have it; 0 where none was.
    pub precision: f64,
    /// Of the texts that have it, how many were given it; 0 where none has it.
    pub recall: f64,
    /// The harmonic mean of both.
    pub f1: f64,
    /// Texts that have it.
    pub support: usize,
    /// Texts that were given it.
    pub predicted: usize,
}

/// How often each class (row) was given each class (column). Texts without an answer are in none.
pub(super) fn confusion(judged: &[Judged], classes: usize) -> Vec<Vec<usize>> {
    let mut matrix = vec![vec![0; classes]; classes];
    for (truth, given) in judged {
        if let Some(cell) = given.and_then(|given| matrix.get_mut(*truth)?.get_mut(given)) {
            *cell += 1;
        }
    }
    matrix
}

/// The share of texts that were given their class; one without an answer was not.
pub(super) fn accuracy(judged: &[Judged]) -> f64 {
    ratio(judged.iter().filter(|(truth, given)| *given == Some(*truth)).count(), judged.len())
}

/// The scores of every class.
pub(super) fn by_class(judged: &[Judged], labels: &[String]) -> Vec<ClassScores> {
    let counts = counts(judged.iter().copied(), labels.len());
    let scored = |(label, count): (&String, &Count)| ClassScores {
        label: label.clone(),
        precision: ratio(count.right, count.predicted),
        recall: ratio(count.right, count.support),
        f1: count.f1(),
        support: count.support,
        predicted: count.predicted,
    };
    labels.iter().zip(&counts).map(scored).collect()
}

/// The mean F1 of the classes that any text has or was given.
pub(super) fn macro_f1(judged: impl IntoIterator<Item = Judged>, classes: usize) -> f64 {
    let counts = counts(judged, classes);
    let present: Vec<f64> = counts.iter().filter(|count| count.support + count.predicted > 0).map(Count::f1).collect();
    if present.is_empty() { 0.0 } else { present.iter().sum::<f64>() / present.len() as f64 }
}

/// The 95% interval of a share of `right` in `all` (Wilson 1927).
pub(super) fn wilson(right: usize, all: usize) -> [f64; 2] {
    const Z: f64 = 1.959_963_984_540_054;
    if all == 0 {
        return [0.0, 1.0];
    }
    let (share, count) = (ratio(right, all), all as f64);
    let (squared, scale) = (Z * Z, 1.0 + Z * Z / count);
    let centre = (share + squared / (2.0 * count)) / scale;
    let half = Z * (share * (1.0 - share) / count + squared / (4.0 * count * count)).sqrt() / scale;
    [(centre - half).max(0.0), (centre + half).min(1.0)]
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    right: usize,
    support: usize,
    predicted: usize,
}

impl Count {
    fn f1(&self) -> f64 {
        ratio(2 * self.right, self.support + self.predicted)
    }
}

fn counts(judged: impl IntoIterator<Item = Judged>, classes: usize) -> Vec<Count> {
    let mut counts = vec![Count::default(); classes];
    for (truth, given) in judged {
        if let Some(count) = counts.get_mut(truth) {
            count.support += 1;
            count.right += usize::from(given == Some(truth));
        }
        if let Some(count) = given.and_then(|given| counts.get_mut(given)) {
            count.predicted += 1;
        }
    }
    counts
}

/// `part / whole`, and 0 of nothing.
pub(super) fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JUDGED: [Judged; 6] = [(0, Some(0)), (0, Some(1)), (1, Some(1)), (1, Some(1)), (1, None), (0, Some(0))];

    /// Compared with scikit-learn on the same labels, the missing answer as a class of its own.
    #[test]
    fn scores_are_those_of_the_definitions() {
        let labels = ["a".to_owned(), "b".to_owned(), "never".to_owned()];
        let classes = by_class(&JUDGED, &labels);
        let rounded = |x: f64| (x * 1e4).round() / 1e4;
        let figures: Vec<_> = classes.iter().map(|c| [c.precision, c.recall, c.f1].map(rounded)).collect();
        assert_eq!(figures, [[1.0, 0.6667, 0.8], [0.6667, 0.6667, 0.6667], [0.0, 0.0, 0.0]]);
        assert_eq!((classes[1].support, classes[1].predicted), (3, 3));
        assert_eq!(rounded(accuracy(&JUDGED)), 0.6667);
        assert_eq!(rounded(macro_f1(JUDGED, 3)), 0.7333, "a class that nothing has or was given counts in no mean");
        assert_eq!(confusion(&JUDGED, 3), [[2, 1, 0], [0, 2, 0], [0, 0, 0]]);
    }

    #[test]
    fn the_interval_is_wilsons() {
        let [low, high] = wilson(8, 10);
        assert!((low - 0.490_2).abs() < 1e-4 && (high - 0.943_3).abs() < 1e-4, "{low} {high}");
        assert_eq!(wilson(0, 0), [0.0, 1.0]);
        assert!(wilson(10, 10)[1] <= 1.0 && wilson(0, 10)[0] >= 0.0);
    }
}
