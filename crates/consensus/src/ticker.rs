//! Turns `now` into raft-rs ticks.
//!
//! The tick is short, so that the randomised timeouts have many values, but it costs no wake-ups:
//! the owner sleeps until the tick at which something happens and runs the ones between at once.

use crate::time::{Mono, Span};

/// Ticks are at most this long.
const TICK_MAX: Span = Span::from_millis(5);

/// Counts the ticks that are due.
#[derive(Clone, Debug)]
pub(crate) struct Ticker {
    tick: Span,
    last: Mono,
}

impl Ticker {
    /// `tick` divides all configured spans: see [`tick_for`].
    pub(crate) fn new(tick: Span, now: Mono) -> Ticker {
        assert!(!tick.is_zero(), "a tick has a length");
        Ticker { tick, last: now }
    }

    /// Ticks that have passed and were not taken.
    pub(crate) fn due(&self, now: Mono) -> u64 {
        (now - self.last).0 / self.tick.0
    }

    /// Takes `count` ticks.
    pub(crate) fn take(&mut self, count: u64) {
        self.last += self.tick * count;
    }

    /// Up to when time was let pass, in whole ticks.
    pub(crate) fn now(&self) -> Mono {
        self.last
    }

    /// When `count` more ticks will be due.
    pub(crate) fn after(&self, count: u64) -> Mono {
        self.last + self.tick * count
    }
}

/// The longest tick up to 5 ms that divides all three spans.
pub(crate) fn tick_for(spans: [Span; 3]) -> Span {
    let common = spans.into_iter().fold(0, |acc, span| gcd(acc, span.0));
    assert!(common > 0, "the spans are not all zero");
    Span(common / common.div_ceil(TICK_MAX.0))
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tick_is_at_most_five_milliseconds_and_divides_the_heartbeat() {
        let ms = Span::from_millis;
        for (spans, tick) in [
            ([ms(30), ms(150), ms(300)], ms(5)),
            ([ms(50), ms(200), ms(400)], ms(5)),
            ([ms(7), ms(70), ms(140)], Span::from_micros(3500)),
            ([ms(3), ms(10), ms(20)], ms(1)),
        ] {
            assert_eq!(tick_for(spans), tick, "{spans:?}");
        }
    }

    #[test]
    fn a_clock_that_goes_back_makes_no_tick_due() {
        let ticker = Ticker::new(Span::from_millis(5), Mono(1_000_000_000));
        assert_eq!(ticker.due(Mono(0)), 0);
        assert_eq!(ticker.due(Mono(1_014_999_999)), 2);
    }
}
