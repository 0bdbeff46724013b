//! A packet filter before a Redis port, set up by somebody who is not us.
//!
//! What other hosts send to the port is dropped without a word; what the host sends, and what comes from itself, passes. Of a
//! connection that stands, data towards the port are lost and so are the acknowledgements of what comes from it: after a window
//! nothing moves in either direction. The window itself is left out.

use crate::{
    fault::{FaultKind, Planned},
    net::Endpoint,
    world::{
        World,
        event::{Group, Undo},
    },
};

/// The filters before one port; they may overlap.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Filter {
    /// Of everybody else.
    all: u32,
    /// Of the other nodes alone: clients on other machines pass.
    nodes: u32,
}

impl Filter {
    pub(crate) fn drops(self, from_node: bool) -> bool {
        self.all > 0 || (from_node && self.nodes > 0)
    }

    fn count(&mut self, kind: FaultKind) -> &mut u32 {
        if kind == FaultKind::PortFiltered { &mut self.all } else { &mut self.nodes }
    }
}

impl World {
    /// Counted as done once it has dropped something.
    pub(super) fn filter_port(&mut self, host: Endpoint, fault: &Planned) -> bool {
        let Some(group) = self.group_at(host, fault) else { return false };
        *self.hosts[host].filters[group].count(fault.kind) += 1;
        self.awaits(fault.kind, Some(host), fault.lasts);
        self.undo_after(fault.lasts, Undo::Unfilter { host, group, kind: fault.kind });
        false
    }

    pub(super) fn unfilter(&mut self, host: Endpoint, group: Group, kind: FaultKind) {
        let count = self.hosts[host].filters[group].count(kind);
        *count = count.saturating_sub(1);
        self.note(format_args!("{host} g{group} {} is over", kind.as_str()));
    }

    /// A packet of `from` to the port of `to` would be dropped.
    pub(super) fn filtered(&self, group: Group, from: Endpoint, to: Endpoint) -> bool {
        from != to && self.hosts[to].filters[group].drops(self.is_host(from))
    }

    /// The same for a packet that is there.
    pub(super) fn dropped(&mut self, group: Group, from: Endpoint, to: Endpoint) -> bool {
        if !self.filtered(group, from, to) {
            return false;
        }
        self.coverage.met("packet dropped by a filter");
        let filter = self.hosts[to].filters[group];
        if filter.all > 0 {
            self.moment(FaultKind::PortFiltered, Some(to));
        }
        if filter.nodes > 0 && self.is_host(from) {
            self.moment(FaultKind::PortFilteredForNodes, Some(to));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_overlap_and_clients_pass_where_nodes_do_not() {
        let mut filter = Filter::default();
        assert!(!filter.drops(true) && !filter.drops(false));
        *filter.count(FaultKind::PortFilteredForNodes) += 1;
        assert!(filter.drops(true) && !filter.drops(false));
        *filter.count(FaultKind::PortFiltered) += 1;
        assert!(filter.drops(true) && filter.drops(false));
        *filter.count(FaultKind::PortFiltered) -= 1;
        assert!(filter.drops(true) && !filter.drops(false));
    }
}
