//! Numbers that look random and come again for the same seed: splitmix64. For resampling, never for keys.
//!
//! Used where a figure must be the same for whoever computes it again: bootstrap intervals, sampled attributions.

/// A generator that repeats itself.
#[derive(Debug, Clone)]
pub struct Seeded(u64);

impl Seeded {
    /// The generator of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits (Steele, Lea and Flood 2014).
    pub const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A whole number below `bound`; 0 for a bound of 0. The bias is below 2^-32 for what is counted here.
    pub fn below(&mut self, bound: usize) -> usize {
        let wide = u128::from(self.next_u64()) * (bound as u128);
        usize::try_from(wide >> 64).unwrap_or(0)
    }

    /// Puts `items` into a random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last + 1);
            items.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first outputs for seed 1234567, as the reference implementation gives them.
    #[test]
    fn it_is_splitmix64() {
        let mut seeded = Seeded::new(1_234_567);
        let first = [seeded.next_u64(), seeded.next_u64(), seeded.next_u64()];
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn a_shuffle_loses_nothing_and_repeats_itself() {
        let shuffled = |seed| {
            let mut items: Vec<usize> = (0..50).collect();
            Seeded::new(seed).shuffle(&mut items);
            items
        };
        assert_eq!(shuffled(7), shuffled(7));
        assert_ne!(shuffled(7), shuffled(8));
        let mut sorted = shuffled(7);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_below_a_bound_reaches_all_of_it() {
        let mut seeded = Seeded::new(1);
        let mut seen = [false; 5];
        for _ in 0..200 {
            seen[seeded.below(5)] = true;
        }
        assert_eq!((seen, seeded.below(0)), ([true; 5], 0));
    }
}
