//! A small seeded generator (splitmix64), so that randomness is an input like any other.

/// splitmix64 (Steele, Lea, Flood 2014). Good enough to spread election timeouts; not for secrets.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    /// Mixes the node in, so that nodes given one seed still draw different timeouts.
    pub(crate) fn new(seed: u64, node: u64) -> Rng {
        let mut rng = Rng(seed ^ node.wrapping_mul(0xd1b5_4a32_d192_ed03));
        rng.next();
        rng
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `low..high`.
    pub(crate) fn in_range(&mut self, low: usize, high: usize) -> usize {
        assert!(low < high, "empty range {low}..{high}");
        low + (self.next() % (high - low) as u64) as usize
    }
}
