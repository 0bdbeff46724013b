//! The one owner of addresses, announcements and socket destruction on this host, in the order the core asked.
//!
//! One thread: a late refresh would re-create a deleted address, so add and delete come from one queue. Announcements
//! repeat by a schedule until the VIP is removed. Once a second, and after every hint of a foreign change, the links are
//! compared with what the core wants; what differs goes to the core, which knows the lease and decides.

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    time::{Duration, Instant},
};

use redkeep_core::{
    Action, ActionId, ActionOutcome, GroupId, HostEvent, Input,
    effect::ActionFailure,
    spec::{GroupSpec, Vip},
};

use crate::inbox::Inbox;

mod hands;

use hands::{Hands, Place};

/// After the first announcement, which leaves at once; then each [`ANNOUNCE_AGAIN`].
const ANNOUNCE_AFTER: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(2),
];
/// Who was cut off when the VIP moved goes on sending to where it was: Linux trusts a neighbour for 15 to 45 s after it last heard it
/// (`base_reachable_time_ms`), and asks for 8 s more. VRRP tells as much each second.
const ANNOUNCE_AGAIN: Duration = Duration::from_secs(2);
/// How often the links are compared with what is wanted.
const COMPARE_EVERY: Duration = Duration::from_secs(1);

/// What the thread is asked for.
#[derive(Debug)]
pub(crate) enum KernelWork {
    Act {
        group: GroupId,
        id: ActionId,
        action: Action,
    },
    /// The groups of this host, now.
    Groups(Vec<GroupSpec>),
    /// Somebody else removed this address from a link.
    AddressRemoved(IpAddr),
    /// Addresses may have changed in ways that were not seen.
    Compare,
}

/// The queue to the kernel thread.
#[derive(Clone, Debug)]
pub(crate) struct KernelQueue {
    work: Sender<KernelWork>,
    /// By which notifications name this thread's own changes of addresses.
    pub(crate) port_id: u32,
}

impl KernelQueue {
    pub(crate) fn put(&self, work: KernelWork) {
        // The thread lives as long as the process.
        let _ = self.work.send(work);
    }

    /// # Errors
    /// No netlink socket, or the thread cannot be started.
    pub(crate) fn run(inbox: Inbox) -> io::Result<Self> {
        let hands = Hands::open().map_err(io::Error::other)?;
        let port_id = hands.port_id();
        let (sender, work) = channel();
        std::thread::Builder::new().name("kernel".into()).spawn(move || {
            let thread = KernelThread {
                hands,
                inbox,
                groups: Vec::new(),
                held: BTreeMap::new(),
                compared: Instant::now(),
            };
            thread.run(&work);
        })?;
        Ok(Self { work: sender, port_id })
    }
}

/// A VIP that the core wants on its link.
#[derive(Debug)]
struct Held {
    place: Place,
    /// How many announcements were sent, and when the next is due; none = not asked for yet.
    announce: Option<(usize, Instant)>,
}

struct KernelThread {
    hands: Hands,
    inbox: Inbox,
    groups: Vec<GroupSpec>,
    held: BTreeMap<GroupId, Held>,
    compared: Instant,
}

impl KernelThread {
    fn run(mut self, work: &Receiver<KernelWork>) {
        loop {
            let next = self.held.values().filter_map(|h| h.announce.map(|(_, at)| at)).min();
            let wake = next
                .map_or(self.compared + COMPARE_EVERY, |at| at.min(self.compared + COMPARE_EVERY));
            match work.recv_timeout(wake.saturating_duration_since(Instant::now())) {
                Ok(KernelWork::Act { group, id, action }) => self.act(group, id, action),
                Ok(KernelWork::Groups(groups)) => {
                    self.groups = groups;
                    self.compare();
                }
                Ok(KernelWork::AddressRemoved(addr)) => self.removed(addr),
                Ok(KernelWork::Compare) => self.compare(),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.announce_due();
            if self.compared.elapsed() >= COMPARE_EVERY {
                self.compare();
            }
        }
    }

    fn act(&mut self, group: GroupId, id: ActionId, action: Action) {
        let done = match action {
            Action::EnsureVip { vip, interface, valid_seconds } => {
                self.ensure_vip(&group, &vip, &interface, valid_seconds)
            }
            Action::RemoveVip { vip, interface } => {
                self.held.remove(&group);
                self.at(&vip, &interface).and_then(|place| self.hands.remove_vip(&place))
            }
            Action::Announce { vip, interface } => self.announce(&group, &vip, &interface),
            Action::ProbeRival { vip, interface } => {
                self.probe_rival(group, id, &vip, &interface);
                return;
            }
            Action::DestroySockets { port } => self.hands.destroy_sockets(port).map(|count| {
                tracing::debug!(port, count, "connections destroyed");
            }),
            Action::Promote(_)
            | Action::GoOn(_)
            | Action::SetMinReplicas(_)
            | Action::Follow { .. }
            | Action::Relink { .. }
            | Action::Compare { .. }
            | Action::KeepAside { .. }
            | Action::PauseAndCatchUp { .. }
            | Action::Unpause
            | Action::ReadOffset
            | Action::ShutWrites
            | Action::VerifyVip { .. } => Err("this is for Redis".to_owned()),
        };
        let outcome = done.map_or_else(failed, |()| ActionOutcome::Done);
        self.inbox.answer(Input::ActionDone { group, id, outcome });
    }

    fn at(&self, vip: &Vip, interface: &str) -> Result<Place, String> {
        Place::new(vip.addr, vip.prefix, interface)
    }

    fn ensure_vip(
        &mut self,
        group: &GroupId,
        vip: &Vip,
        interface: &str,
        valid_seconds: u32,
    ) -> Result<(), String> {
        let place = self.at(vip, interface)?;
        self.hands.ensure_vip(&place, valid_seconds)?;
        self.held
            .entry(group.clone())
            .and_modify(|h| h.place = place.clone())
            .or_insert(Held { place, announce: None });
        Ok(())
    }

    /// The first announcement leaves now; the others follow by the schedule.
    fn announce(&mut self, group: &GroupId, vip: &Vip, interface: &str) -> Result<(), String> {
        let place = self.at(vip, interface)?;
        let sent = self.hands.announce(&place);
        if let Some(held) = self.held.get_mut(group) {
            held.announce = Some((0, Instant::now() + ANNOUNCE_AFTER[0]));
        }
        sent
    }

    fn announce_due(&mut self) {
        let now = Instant::now();
        for held in self.held.values_mut() {
            let Some((sent, at)) = held.announce.filter(|(_, at)| *at <= now) else { continue };
            if let Err(error) = self.hands.announce(&held.place) {
                tracing::debug!(place = ?held.place, error, "an announcement was not sent");
            }
            // Each pause counts from the first announcement: 50 ms, 200 ms, 1 s, 2 s, then each 2 s.
            let pause = match ANNOUNCE_AFTER.get(sent + 1) {
                Some(after) => *after - ANNOUNCE_AFTER[sent],
                None => ANNOUNCE_AGAIN,
            };
            held.announce = Some((sent + 1, at + pause));
        }
    }

    /// On a thread of its own: nothing waits for a rival that does not answer.
    fn probe_rival(&self, group: GroupId, id: ActionId, vip: &Vip, interface: &str) {
        let inbox = self.inbox.clone();
        let place = self.at(vip, interface);
        let answer = {
            let group = group.clone();
            move || {
                let outcome = match place.and_then(|place| hands::probe_rival(&place)) {
                    Ok(Some(who)) => ActionOutcome::Rival(who),
                    Ok(None) => ActionOutcome::Done,
                    Err(error) => failed(error),
                };
                inbox.answer(Input::ActionDone { group, id, outcome });
            }
        };
        if let Err(error) = std::thread::Builder::new().name("rival".into()).spawn(answer) {
            self.inbox.answer(Input::ActionDone { group, id, outcome: failed(error.to_string()) });
        }
    }

    fn removed(&mut self, addr: IpAddr) {
        let lost: Vec<GroupId> = self
            .held
            .iter()
            .filter(|(_, h)| h.place.addr() == addr)
            .map(|(g, _)| g.clone())
            .collect();
        for group in lost {
            self.inbox.answer(Input::Host(HostEvent::VipRemoved { group }));
        }
    }

    /// Tell the core where the links differ from what it wants; it knows whether that is wrong.
    fn compare(&mut self) {
        self.compared = Instant::now();
        let present = match self.hands.addresses() {
            Ok(present) => present,
            Err(error) => {
                tracing::warn!(error, "the addresses of this host cannot be listed");
                return;
            }
        };
        for group in &self.groups {
            let on_link = present.contains(&group.vip.addr);
            let held = self.held.contains_key(&group.id);
            let event = match (on_link, held) {
                (true, false) => HostEvent::VipPresent { group: group.id.clone() },
                (false, true) => HostEvent::VipRemoved { group: group.id.clone() },
                (true, true) | (false, false) => continue,
            };
            self.inbox.answer(Input::Host(event));
        }
    }
}

fn failed(text: String) -> ActionOutcome {
    ActionOutcome::Failed(ActionFailure { retry: true, text })
}
