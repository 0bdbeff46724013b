//! Faults of a whole machine: power, a pause by its hypervisor, and the supervisor's disk.

use redkeep_core::Span;

use crate::{
    fault::FaultKind,
    net::Endpoint,
    world::{
        World,
        event::{Event, Keep, Undo},
    },
};

/// The service manager starts a supervisor that ended again after this.
const START_AGAIN: Span = Span::from_millis(100);
/// What comes to a machine that stands still is looked at again after this.
const STANDS: Span = Span::from_millis(1);

impl World {
    /// All memory goes, and what was not synced, but for a part of it.
    pub(super) fn power_off(&mut self, host: Endpoint, lasts: Span) -> bool {
        if !self.hosts[host].powered {
            return false;
        }
        self.hosts[host].powered = false;
        self.hosts[host].process = None;
        for group in 0..self.spec.groups.len() {
            self.kill_redis(host, group);
            self.hosts[host].vips[group] = None;
        }
        let unsynced = self.hosts[host].disk.unsynced();
        let kept = self.dice.disk.index(unsynced + 1);
        if kept < unsynced {
            self.coverage.met("unsynced write lost");
        }
        let h = &mut self.hosts[host];
        h.disk.power_lost(kept);
        h.lock.close_all(std::collections::BTreeSet::new());
        self.undo_after(lasts, Undo::PowerOn { host });
        true
    }

    /// The boot unit makes the table, closed, before anything else starts.
    pub(super) fn power_on(&mut self, host: Endpoint) {
        let own = (0..self.spec.groups.len()).filter(|g| self.hosts[host].redis[*g].is_some());
        let ports = own.map(|g| self.port(g)).collect();
        self.hosts[host].lock.close_all(ports);
        self.hosts[host].powered = true;
        for group in 0..self.spec.groups.len() {
            if let Some(redis) = self.hosts[host].redis[group].as_mut() {
                redis.frozen = 0;
                let delay = Span(self.dice.faults.range(10_000_000, 300_000_000));
                self.after(delay, Event::RedisStart { host, group, keep: Keep::Most });
            }
        }
        let delay = Span(self.dice.faults.range(10_000_000, 500_000_000));
        self.after(delay, Event::Start { host });
    }

    /// Its processes, its clocks and its kernel's timers stand still together.
    pub(super) fn pause_machine(&mut self, host: Endpoint, lasts: Span) -> bool {
        if !self.hosts[host].powered {
            return false;
        }
        self.note(format_args!("{host} stands still"));
        self.hosts[host].standing += 1;
        self.hosts[host].clock.stop(self.now);
        self.freeze_supervisor(host, lasts);
        for group in 0..self.spec.groups.len() {
            self.freeze_redis(host, group, lasts);
        }
        self.undo_after(lasts, Undo::Resume { host });
        true
    }

    pub(super) fn resume_machine(&mut self, host: Endpoint) {
        self.hosts[host].standing -= 1;
        if self.hosts[host].standing > 0 {
            return;
        }
        self.hosts[host].clock.go(self.now);
        self.note(format_args!("{host} goes on"));
        // When the kernel takes an address away was reckoned without the pause.
        for group in 0..self.spec.groups.len() {
            if let Some(ends) = self.hosts[host].vips[group] {
                self.watch_vip(host, group, ends.0);
            }
        }
    }

    /// True if the machine stands still: the event comes again.
    pub(super) fn put_off(&mut self, host: Endpoint, event: impl FnOnce() -> Event) -> bool {
        let stands = self.hosts[host].standing > 0;
        if stands {
            self.after(STANDS, event());
        }
        stands
    }

    pub(super) fn disk_fails(&mut self, host: Endpoint, lasts: Span) -> bool {
        let until = self.now.after(lasts);
        self.hosts[host].disk_fails_until = self.hosts[host].disk_fails_until.max(until);
        self.awaits(FaultKind::DiskFails, Some(host), lasts);
        false
    }

    /// A refused write ends the process, which has acknowledged nothing of it.
    pub(super) fn disk_refuses(&mut self, host: Endpoint) -> bool {
        let refuses = self.now < self.hosts[host].disk_fails_until;
        if refuses {
            self.moment(FaultKind::DiskFails, Some(host));
            self.note(format_args!("{host} disk refuses a write"));
            if let Some(p) = self.hosts[host].process.as_mut() {
                p.disk.clear();
            }
            self.kill_supervisor(host, Some(START_AGAIN));
        }
        refuses
    }

    /// A start writes too.
    pub(super) fn start_is_refused(&mut self, host: Endpoint) -> bool {
        let refused = self.now < self.hosts[host].disk_fails_until;
        if refused {
            self.coverage.met("start refused by the disk");
            self.after(START_AGAIN, Event::Start { host });
        }
        refused
    }
}
