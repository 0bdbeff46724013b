//! Connections and address of a tenure that ended by a fence: they go when another node serves.
//!
//! The closed lock keeps everybody away from Redis, so neither is a danger. But who is told early that its connection is gone
//! comes again at once, before the address has moved: its SYN is lost, and TCP sends the next one after a second (RFC 6298).
//! So connections are reset when there is somebody who answers, and the address goes right after: without it no reset would
//! leave. Where nobody is named, both go after [`WITHIN`], lest the address stay where nothing answers.

use redkeep_consensus::{Mono, Span};

use super::{Cx, HostGroup};
use crate::{effect::Action, model::Assignment};

/// Somewhat longer than a takeover after a crash.
const WITHIN: Span = Span(100_000_000);

#[derive(Clone, Copy, Debug)]
pub(super) struct Departure {
    had_vip: bool,
    until: Mono,
}

impl Departure {
    pub(super) fn new(now: Mono, had_vip: bool) -> Self {
        Self { had_vip, until: now + WITHIN }
    }

    pub(super) fn had_vip(&self) -> bool {
        self.had_vip
    }

    pub(super) fn deadline(&self) -> Mono {
        self.until
    }
}

impl HostGroup {
    pub(super) fn depart(&mut self, cx: &mut Cx<'_>, a: &Assignment) {
        let Some(departure) = self.departure else { return };
        let is_over = cx.now.boot >= departure.until;
        match a.master == self.me {
            // Named again: the address is wanted, and this Redis goes on with whom it has.
            true if self.fence.is_none() => self.departure = None,
            true if !is_over => {}
            false if !a.serving && !is_over => {}
            true | false => {
                self.departure = None;
                self.clear_address(cx, departure.had_vip);
            }
        }
    }

    /// Reset the connections while the address is still there (else IPv4 clients get no RST), then the address. The lock is
    /// closed already, so nobody comes in between. Each look at the sockets is a walk through the kernel's whole table of TCP
    /// connections: milliseconds of a core.
    pub(super) fn clear_address(&mut self, cx: &mut Cx<'_>, had_vip: bool) {
        cx.sink.act(&self.spec.id, Action::DestroySockets { port: self.spec.port });
        let (vip, interface) = (self.spec.vip, self.spec.interface.clone());
        let id = cx.sink.act(&self.spec.id, Action::RemoveVip { vip, interface });
        if had_vip {
            self.removing = Some(id);
        }
    }
}
