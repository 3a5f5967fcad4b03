//! When which job is sent: drawn once from a seed, and played alike to every arm.

use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

use super::random::Random;

/// Jobs of one burst, on average.
const BURST: f64 = 16.0;

/// How jobs arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Arrivals {
    /// One by one, knowing nothing of each other
    Poisson,
    /// In bursts of 16 on average, which know nothing of each other
    Bursty,
    /// As many under way as --window, one for one: no load, but the most that goes through
    Window,
}

/// A job of a trace.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Arrival {
    /// When it should be sent, from the beginning of the block.
    pub(super) at: Duration,
    /// Its place in the cargo.
    pub(super) job: usize,
}

/// Arrivals at `rate` jobs a second for as long as `length`, each with a job of `cargo` drawn at random.
pub(super) fn trace(
    random: &mut Random,
    arrivals: Arrivals,
    rate: f64,
    (length, cargo): (Duration, usize),
) -> Vec<Arrival> {
    let mut trace = Vec::new();
    let mut at = 0.0;
    loop {
        let together = match arrivals {
            Arrivals::Poisson | Arrivals::Window => {
                at += random.exponential(1.0 / rate);
                1
            }
            Arrivals::Bursty => {
                at += random.exponential(BURST / rate);
                burst(random)
            }
        };
        if at >= length.as_secs_f64() {
            return trace;
        }
        let moment = Duration::from_secs_f64(at);
        trace.extend((0..together).map(|_| Arrival { at: moment, job: random.below(cargo) }));
    }
}

/// The size of a burst: geometric, at least 1.
fn burst(random: &mut Random) -> usize {
    let mut size = 1;
    while random.uniform() > 1.0 / BURST {
        size += 1;
    }
    size
}

/// How long texts are: as they are, or so many words each.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Lengths {
    /// As they are.
    Texts,
    /// Words and weights.
    Mix(Vec<(usize, f64)>),
}

impl Lengths {
    /// A number of words; `None` for a text as it is.
    pub(super) fn draw(&self, random: &mut Random) -> Option<usize> {
        match self {
            Self::Texts => None,
            Self::Mix(mix) => {
                let place = random.weighted(mix.iter().map(|(_, weight)| *weight));
                mix.get(place).map(|(words, _)| *words)
            }
        }
    }
}

impl FromStr for Lengths {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "texts" {
            return Ok(Self::Texts);
        }
        let expected = || format!("`{text}`: expected `texts`, or WORDS[:WEIGHT],... such as 16:3,128:1");
        let one = |part: &str| {
            let (words, weight) = part.split_once(':').unwrap_or((part, "1"));
            let words = words.trim().parse::<usize>().ok().filter(|words| (1..=100_000).contains(words))?;
            let weight = weight.trim().parse::<f64>().ok().filter(|weight| weight.is_finite() && *weight > 0.0)?;
            Some((words, weight))
        };
        let mix: Option<Vec<(usize, f64)>> = text.split(',').map(one).collect();
        mix.map(Self::Mix).ok_or_else(expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn drawn(seed: u64, arrivals: Arrivals, rate: f64) -> Vec<Arrival> {
        trace(&mut Random::new(seed), arrivals, rate, (100 * SECOND, 10))
    }

    #[test]
    fn a_trace_follows_from_its_seed_and_is_in_order() {
        for arrivals in [Arrivals::Poisson, Arrivals::Bursty] {
            let first = drawn(1, arrivals, 50.0);
            assert_eq!(first, drawn(1, arrivals, 50.0));
            assert_ne!(first, drawn(2, arrivals, 50.0));
            assert!(first.is_sorted_by_key(|arrival| arrival.at));
            assert!(first.iter().all(|arrival| arrival.job < 10 && arrival.at < 100 * SECOND));
        }
    }

    #[test]
    fn both_kinds_of_arrivals_come_at_the_rate_that_was_asked_for() {
        for (arrivals, slack) in [(Arrivals::Poisson, 300), (Arrivals::Bursty, 1_500)] {
            let count = drawn(3, arrivals, 100.0).len();
            assert!(count.abs_diff(10_000) < slack, "{arrivals:?}: {count}");
        }
        let bursts: std::collections::BTreeSet<Duration> =
            drawn(3, Arrivals::Bursty, 100.0).iter().map(|arrival| arrival.at).collect();
        assert!(bursts.len().abs_diff(625) < 80, "{}", bursts.len());
    }

    #[test]
    fn a_mix_of_lengths_is_read_and_drawn_by_its_weights() {
        let mix: Lengths = "16:3, 128".parse().unwrap();
        assert_eq!(mix, Lengths::Mix(vec![(16, 3.0), (128, 1.0)]));
        let mut random = Random::new(5);
        let long = (0..10_000).filter(|_| mix.draw(&mut random) == Some(128)).count();
        assert!(long.abs_diff(2_500) < 200, "{long}");
        assert_eq!("texts".parse::<Lengths>().unwrap().draw(&mut random), None);
        for wrong in ["", "0", "16:0", "16:x", "many", "16,,32"] {
            assert!(wrong.parse::<Lengths>().unwrap_err().contains("WORDS[:WEIGHT]"), "{wrong}");
        }
    }
}
