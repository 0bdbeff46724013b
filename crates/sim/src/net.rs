//! The network: directed links between endpoints (hosts first, then client machines), each cut or not.
//!
//! Cuts are counted, so that faults may overlap. Deliberately absent: streams; a message may be lost, doubled or
//! overtaken, which is more than TCP would do and all that the protocol may rely on.

use redkeep_core::Span;

use crate::rng::Rng;

/// Index of a host or a client machine.
pub type Endpoint = usize;

/// How bad the network is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Weather {
    pub loss_ppm: u64,
    pub duplicate_ppm: u64,
    /// Messages that are held up for long, in parts per million, and for how long at most.
    pub straggler_ppm: u64,
    pub straggler_max: Span,
    pub delay_min: Span,
    pub delay_max: Span,
}

/// What happened to one message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    Lost,
    Once(Span),
    Twice(Span, Span),
}

#[derive(Clone, Debug)]
pub struct Network {
    endpoints: usize,
    cuts: Vec<u32>,
    pub weather: Weather,
}

impl Network {
    #[must_use]
    pub fn new(endpoints: usize, weather: Weather) -> Self {
        Self { endpoints, cuts: vec![0; endpoints * endpoints], weather }
    }

    #[must_use]
    pub fn endpoints(&self) -> usize {
        self.endpoints
    }

    /// A packet from `from` reaches `to`. An endpoint always reaches itself.
    #[must_use]
    pub fn connected(&self, from: Endpoint, to: Endpoint) -> bool {
        from == to || self.cuts[from * self.endpoints + to] == 0
    }

    #[must_use]
    pub fn both_ways(&self, a: Endpoint, b: Endpoint) -> bool {
        self.connected(a, b) && self.connected(b, a)
    }

    pub fn cut(&mut self, from: Endpoint, to: Endpoint) {
        self.cuts[from * self.endpoints + to] += 1;
    }

    pub fn heal(&mut self, from: Endpoint, to: Endpoint) {
        let cut = &mut self.cuts[from * self.endpoints + to];
        *cut = cut.saturating_sub(1);
    }

    /// Delay of a packet that is neither lost nor held up.
    pub fn delay(&self, rng: &mut Rng) -> Span {
        Span(rng.range(self.weather.delay_min.0, self.weather.delay_max.0))
    }

    /// What becomes of a message between supervisors that leaves now.
    pub fn fate(&self, rng: &mut Rng) -> Fate {
        let w = self.weather;
        if rng.chance(w.loss_ppm) {
            return Fate::Lost;
        }
        let first = self.held_up(rng);
        if rng.chance(w.duplicate_ppm) {
            return Fate::Twice(first, self.held_up(rng));
        }
        Fate::Once(first)
    }

    fn held_up(&self, rng: &mut Rng) -> Span {
        let delay = self.delay(rng);
        if rng.chance(self.weather.straggler_ppm) {
            return delay + Span(rng.below(self.weather.straggler_max.0));
        }
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calm() -> Weather {
        Weather {
            loss_ppm: 0,
            duplicate_ppm: 0,
            straggler_ppm: 0,
            straggler_max: Span(0),
            delay_min: Span(10),
            delay_max: Span(20),
        }
    }

    #[test]
    fn overlapping_cuts_heal_one_by_one_and_one_way_only() {
        let mut net = Network::new(2, calm());
        net.cut(0, 1);
        net.cut(0, 1);
        net.heal(0, 1);
        assert!(!net.connected(0, 1));
        assert!(net.connected(1, 0));
        net.heal(0, 1);
        assert!(net.both_ways(0, 1));
        assert!(net.connected(1, 1));
    }

    #[test]
    fn calm_weather_neither_loses_nor_doubles() {
        let net = Network::new(2, calm());
        let mut rng = Rng::new(1, 1);
        for _ in 0..1000 {
            assert!(matches!(net.fate(&mut rng), Fate::Once(d) if (10..=20).contains(&d.0)));
        }
    }
}
