//! Replication over the same network, and through the lock of the master's host.
//!
//! The stream is TCP: what the lock or a cut drops is sent again later; a request to a closed port is answered by a
//! reset, which ends the connection on both sides. What is lost is sent again at doubling intervals, so a connection that was
//! cut for long is silent for about as long again, unless it is ended and made anew.

use redkeep_core::Span;

use crate::{
    check::Violation,
    clock::Real,
    net::Endpoint,
    redis::{Attached, Backoff, DataSet, REPL_TIMEOUT, Role, Upstream},
    world::{
        World,
        event::{Event, Group, LinkEvent, RedisEvent},
        next,
    },
};

/// One connection of a replica to its master.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Link {
    pub(super) group: Group,
    pub(super) master: Endpoint,
    pub(super) replica: Endpoint,
    pub(super) conn: u64,
}

impl World {
    pub(super) fn connect_soon(&mut self, host: Endpoint, group: Group, least: Span) {
        let delay = least + Span(self.dice.redis.below(200_000_000));
        self.redis_after(host, group, delay, RedisEvent::Connect);
    }

    pub(super) fn pump_soon(&mut self, host: Endpoint, group: Group) {
        self.redis_after(host, group, Span(20_000), RedisEvent::Pump);
    }

    fn link_after(&mut self, link: Link, delay: Span, event: LinkEvent) {
        let Link { group, master, replica, conn } = link;
        self.after(delay, Event::Link { group, master, replica, conn, event });
    }

    /// A connection from the replica to the master's port can be made.
    pub(super) fn reachable(&self, group: Group, master: Endpoint, replica: Endpoint) -> bool {
        let up = self.hosts[master].redis[group].as_ref().is_some_and(crate::redis::Redis::runs);
        up && self.net.both_ways(master, replica)
            && !self.filtered(group, replica, master)
            && self.hosts[master].passes(self.port(group), self.now)
    }

    pub(super) fn connect(&mut self, replica: Endpoint, group: Group) {
        let Some(redis) = self.hosts[replica].redis[group].as_ref() else { return };
        let Role::ReplicaOf(master) = redis.role else { return };
        if !redis.is_up() || redis.upstream.is_some() || master == replica {
            return;
        }
        if redis.frozen > 0 || !self.reachable(group, master, replica) {
            let again = Span(self.dice.redis.range(200_000_000, 1_000_000_000));
            return self.redis_after(replica, group, again, RedisEvent::Connect);
        }
        let conn = next(&mut self.counters.connection);
        let now = self.now;
        if let Some(redis) = self.hosts[replica].redis[group].as_mut() {
            let backoff = Backoff::default();
            redis.upstream = Some(Upstream { conn, online: false, last_heard: now, backoff });
        }
        let delay = self.net.delay(&mut self.dice.redis) * 3;
        self.link_after(Link { group, master, replica, conn }, delay, LinkEvent::Handshake);
    }

    pub(super) fn link_event(&mut self, link: Link, event: LinkEvent) {
        match event {
            LinkEvent::Handshake => self.handshake(link),
            LinkEvent::Full { data } => self.full(link, *data),
            LinkEvent::Stream { from, writes } => self.stream(link, from, &writes),
            LinkEvent::Ack { offset } => self.ack(link, offset),
        }
    }

    /// The replica still holds this connection.
    fn holds(&self, link: Link) -> bool {
        let redis = self.hosts[link.replica].redis[link.group].as_ref();
        redis.is_some_and(|r| r.is_up() && r.upstream.is_some_and(|u| u.conn == link.conn))
    }

    fn handshake(&mut self, link: Link) {
        if !self.holds(link) {
            return;
        }
        let Link { group, master, replica, conn } = link;
        let (history, offset) = match self.hosts[replica].redis[group].as_ref() {
            Some(r) => (r.data.history, r.data.offset),
            None => return,
        };
        let now = self.now;
        let reachable = self.reachable(group, master, replica);
        let source = self.hosts[master].redis[group].as_mut().filter(|m| {
            // A replica without a link answers NOMASTERLINK.
            m.role == Role::Master || m.upstream.is_some_and(|u| u.online)
        });
        let Some(source) = source.filter(|_| reachable) else {
            return self.link_down(replica, group, conn);
        };
        let backoff = Backoff::default();
        let mut attached =
            Attached { conn, sent: offset, acked: offset, last_ack: now, online: true, backoff };
        if source.can_continue(history, offset) {
            let id = source.data.history;
            source.attached.insert(replica, attached);
            self.coverage.met("partial resynchronisation");
            self.note(format_args!("{replica} g{group} goes on from {master} at {offset}"));
            if let Some(r) = self.hosts[replica].redis[group].as_mut() {
                r.continue_with(id);
                r.upstream = Some(Upstream { conn, online: true, last_heard: now, backoff });
            }
            return self.pump_soon(master, group);
        }
        attached.online = false;
        attached.acked = 0;
        attached.sent = source.data.offset;
        let data = Box::new(source.data.clone());
        source.attached.insert(replica, attached);
        let took = Span(self.dice.redis.range(5_000_000, 120_000_000));
        self.link_after(link, took, LinkEvent::Full { data });
    }

    fn full(&mut self, link: Link, data: DataSet) {
        let Link { group, master, replica, conn } = link;
        let path = self.net.connected(master, replica)
            && !self.filtered(group, replica, master)
            && self.hosts[master].passes(self.port(group), self.now);
        let known = |a: Option<&Attached>| a.is_some_and(|a| a.conn == conn);
        let source = self.hosts[master].redis[group].as_ref();
        let alive = source.is_some_and(|m| m.runs() && known(m.attached.get(&replica)));
        if !self.holds(link) || !path || !alive {
            return self.cut(link);
        }
        self.coverage.met("full resynchronisation");
        let now = self.now;
        let Some(r) = self.hosts[replica].redis[group].as_mut() else { return };
        let (had, gets) = (r.data.log.len(), data.log.len());
        let offset = data.offset;
        // The tail that only an old master has may go; a data set that began anew must not win.
        let anew = r.data.log.first().is_some_and(|first| !data.log.contains(first));
        r.replace(data);
        let backoff = Backoff::default();
        r.upstream = Some(Upstream { conn, online: true, last_heard: now, backoff });
        self.note(format_args!("{replica} g{group} copies {master}: {gets} writes for {had}"));
        let rival = std::mem::take(&mut self.hosts[replica].rival[group]);
        let by_order = rival || self.checks.ledger.named_by_operator(group, master);
        if anew && gets < had && !by_order && self.knows_as_member(master, replica, group) {
            self.fail(Violation::EmptyReplaced { group, host: replica, had, gets });
        }
        if let Some(a) = self.attached(link) {
            a.online = true;
            a.acked = offset;
            a.last_ack = now;
        }
        self.leave_replicas(replica, group);
        self.pump_soon(master, group);
    }

    fn upstream(&mut self, link: Link) -> Option<&mut Upstream> {
        let replica = self.hosts[link.replica].redis[link.group].as_mut()?;
        replica.upstream.as_mut().filter(|u| u.conn == link.conn)
    }

    fn attached(&mut self, link: Link) -> Option<&mut Attached> {
        let master = self.hosts[link.master].redis[link.group].as_mut()?;
        master.attached.get_mut(&link.replica).filter(|a| a.conn == link.conn)
    }

    /// Send what the replicas do not have; what cannot leave now is sent again.
    pub(super) fn pump(&mut self, master: Endpoint, group: Group) {
        let now = self.now;
        // Behind a filter no acknowledgement of a segment arrives: nothing more is sent.
        let leaves = self.hosts[master].answer_leaves(self.port(group), now)
            && !self.hosts[master].filters[group].drops(true);
        let Some(m) = self.hosts[master].redis[group].as_mut().filter(|m| m.runs()) else { return };
        let mut packets = Vec::new();
        let mut again = false;
        for (replica, a) in &mut m.attached {
            if !a.online || a.sent >= m.data.offset {
                continue;
            }
            if a.backoff.waits(now) {
                again = true;
            } else if leaves && self.net.connected(master, *replica) {
                let missing = usize::try_from((m.data.offset - a.sent) / crate::redis::WRITE_BYTES)
                    .unwrap_or(0);
                let at = m.data.log.len().saturating_sub(missing);
                packets.push((*replica, a.conn, a.sent, m.data.log[at..].to_vec()));
                a.sent = m.data.offset;
            } else {
                a.backoff.lost(now);
                again = true;
            }
        }
        if again && m.resend_at <= self.now {
            let later = Span(self.dice.redis.range(100_000_000, 300_000_000));
            m.resend_at = self.now.after(later);
            self.redis_after(master, group, later, RedisEvent::Pump);
        }
        for (replica, conn, from, writes) in packets {
            let delay = self.net.delay(&mut self.dice.redis);
            let link = Link { group, master, replica, conn };
            self.link_after(link, delay, LinkEvent::Stream { from, writes });
        }
    }

    fn stream(&mut self, link: Link, from: u64, writes: &[crate::redis::WriteId]) {
        if !self.holds(link) {
            return;
        }
        let now = self.now;
        let arrived = self.net.connected(link.master, link.replica);
        let Some(r) = self.hosts[link.replica].redis[link.group].as_mut() else { return };
        if r.frozen > 0 {
            let event = LinkEvent::Stream { from, writes: writes.to_vec() };
            return self.link_after(link, Span::from_millis(20), event);
        }
        if !arrived || !r.extend(from, writes) {
            // TCP sends again from the first byte that is missing.
            let have = r.data.offset;
            if let Some(a) = self.attached(link) {
                a.sent = a.sent.min(have);
                if !arrived && !a.backoff.waits(now) {
                    a.backoff.lost(now);
                }
            }
            let later = Span(self.dice.redis.range(1_000_000, 200_000_000));
            return self.redis_after(link.master, link.group, later, RedisEvent::Pump);
        }
        let offset = r.data.offset;
        if let Some(u) = r.upstream.as_mut() {
            u.last_heard = now;
        }
        if let Some(a) = self.attached(link) {
            a.backoff.arrived();
        }
        self.send_ack(link, offset);
        self.pump_soon(link.replica, link.group);
    }

    fn send_ack(&mut self, link: Link, offset: u64) {
        let (now, open) = (self.now, self.net.connected(link.replica, link.master));
        let Some(u) = self.upstream(link).filter(|u| !u.backoff.waits(now)) else { return };
        if !open {
            u.backoff.lost(now);
        } else {
            let delay = self.net.delay(&mut self.dice.redis);
            self.link_after(link, delay, LinkEvent::Ack { offset });
        }
    }

    fn ack(&mut self, link: Link, offset: u64) {
        let Link { group, master, replica, .. } = link;
        let now = self.now;
        let lost = !self.net.connected(replica, master) || !self.hosts[master].powered;
        if lost || self.dropped(group, replica, master) {
            if let Some(u) = self.upstream(link).filter(|u| !u.backoff.waits(now)) {
                u.backoff.lost(now);
            }
            return;
        }
        if !self.hosts[master].passes(self.port(group), now) {
            self.coverage.met("replication reset by the lock");
            return self.cut(link);
        }
        if !self.hosts[master].redis[group].as_ref().is_some_and(crate::redis::Redis::runs) {
            return;
        }
        let Some(a) = self.attached(link) else { return self.cut(link) };
        a.acked = a.acked.max(offset);
        a.last_ack = now;
        if let Some(u) = self.upstream(link) {
            u.backoff.arrived();
        }
        self.check_waits(master, group);
    }

    /// The connection ends on both sides, as far as the other side can hear it.
    fn cut(&mut self, link: Link) {
        let Link { group, master, replica, conn } = link;
        if let Some(m) = self.hosts[master].redis[group].as_mut()
            && m.attached.get(&replica).is_some_and(|a| a.conn == conn)
        {
            m.attached.remove(&replica);
        }
        if self.net.connected(master, replica) && self.hosts[master].powered {
            let delay = self.net.delay(&mut self.dice.redis);
            self.redis_after(replica, group, delay, RedisEvent::LinkDown { conn });
        }
    }

    pub(super) fn link_down(&mut self, replica: Endpoint, group: Group, conn: u64) {
        let Some(r) = self.hosts[replica].redis[group].as_mut() else { return };
        if r.upstream.is_some_and(|u| u.conn == conn) {
            r.upstream = None;
            self.note(format_args!("{replica} g{group} link down"));
            self.connect_soon(replica, group, Span(1_000_000));
        }
    }

    /// The supervisor ends a link over which nothing came for long; Redis makes another.
    pub(super) fn relink(&mut self, replica: Endpoint, group: Group, master: Endpoint) {
        let now = self.now;
        let Some(r) = self.hosts[replica].redis[group].as_ref() else { return };
        let quiet = |u: &Upstream| u.online && now.since(u.last_heard) >= Span::from_secs(2);
        if let Some(u) = r.upstream.filter(quiet).filter(|_| r.role == Role::ReplicaOf(master)) {
            self.coverage.met("dead link renewed");
            self.link_down(replica, group, u.conn);
        }
    }

    /// All connections of replicas to this Redis end.
    pub(super) fn cut_replicas(&mut self, master: Endpoint, group: Group) {
        let Some(m) = self.hosts[master].redis[group].as_ref() else { return };
        let links: Vec<Link> = m
            .attached
            .iter()
            .map(|(replica, a)| Link { group, master, replica: *replica, conn: a.conn })
            .collect();
        for link in links {
            self.cut(link);
        }
    }

    pub(super) fn cut_replicas_of_new_master(&mut self, host: Endpoint, group: Group) {
        let is_replica =
            self.hosts[host].redis[group].as_ref().is_some_and(|r| r.role != Role::Master);
        if is_replica {
            self.cut_replicas(host, group);
        }
    }

    fn leave_replicas(&mut self, host: Endpoint, group: Group) {
        self.cut_replicas(host, group);
    }

    /// The replica's side closes its connection.
    pub(super) fn leave_upstream(&mut self, replica: Endpoint, group: Group) {
        let Some(r) = self.hosts[replica].redis[group].as_mut() else { return };
        let (Role::ReplicaOf(master), Some(upstream)) = (r.role, r.upstream.take()) else { return };
        if !self.net.connected(replica, master) || self.dropped(group, replica, master) {
            return;
        }
        if let Some(m) = self.hosts[master].redis[group].as_mut()
            && m.attached.get(&replica).is_some_and(|a| a.conn == upstream.conn)
        {
            m.attached.remove(&replica);
        }
    }

    pub(super) fn leave_links(&mut self, host: Endpoint, group: Group) {
        self.leave_upstream(host, group);
        self.cut_replicas(host, group);
    }

    /// Each second: replicas acknowledge, masters ping, and both give up on a silent peer.
    pub(super) fn replication_beat(&mut self, group: Group) {
        self.after(Span::from_secs(1), Event::ReplicationBeat { group });
        for replica in 0..self.hosts.len() {
            self.beat_replica(replica, group);
        }
        for master in 0..self.hosts.len() {
            self.beat_master(master, group);
        }
    }

    fn beat_replica(&mut self, replica: Endpoint, group: Group) {
        let now = self.now;
        let Some(r) = self.hosts[replica].redis[group].as_ref().filter(|r| r.runs()) else {
            return;
        };
        let (Role::ReplicaOf(master), Some(upstream)) = (r.role, r.upstream) else { return };
        let link = Link { group, master, replica, conn: upstream.conn };
        let offset = r.data.offset;
        let reachable = self.reachable(group, master, replica);
        let cut = !self.net.both_ways(master, replica) || self.filtered(group, replica, master);
        let pinged = self.attached(link).is_some_and(|a| {
            match (a.backoff.waits(now), reachable) {
                (false, true) => a.backoff.arrived(),
                (false, false) if cut => a.backoff.lost(now),
                (false, false) | (true, _) => {}
            }
            reachable && !a.backoff.waits(now)
        });
        if upstream.online && reachable && !pinged {
            self.coverage.met("link waits for TCP");
        }
        if pinged {
            self.heard(link, now);
        } else if now.since(upstream.last_heard) > REPL_TIMEOUT {
            self.coverage.met("replication timed out");
            return self.link_down(replica, group, upstream.conn);
        }
        if upstream.online {
            self.send_ack(link, offset);
        }
    }

    fn heard(&mut self, link: Link, now: Real) {
        if let Some(r) = self.hosts[link.replica].redis[link.group].as_mut()
            && let Some(u) = r.upstream.as_mut()
        {
            u.last_heard = now;
        }
    }

    fn beat_master(&mut self, master: Endpoint, group: Group) {
        let now = self.now;
        let Some(m) = self.hosts[master].redis[group].as_mut().filter(|m| m.runs()) else { return };
        m.attached.retain(|_, a| now.since(a.last_ack) <= REPL_TIMEOUT);
        self.pump_soon(master, group);
    }
}
