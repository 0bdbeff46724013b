//! Checkers outside the system under test. They see true time and every host at once.
//!
//! Safety is looked at after each event: one writer, no open port without a lease or a true replica, rising epochs, VIP
//! first, no act without a lease, acknowledged writes. Progress and agreement are sampled. Deliberately absent: any use of what the system believes where the truth is at hand.

pub mod ledger;
pub mod looks;
pub mod majorities;
pub mod orders;
pub mod permission;
pub mod progress;
pub mod strict;
pub mod tails;

use redkeep_core::{Epoch, NodeId, Span, spec::ClusterSpec};

use crate::redis::WriteId;

/// An invariant that did not hold. Groups and hosts are indices in the layout.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Violation {
    #[error("group {group}: the ports of {a} and {b} are both open by a lease")]
    TwoLeases { group: usize, a: NodeId, b: NodeId },
    #[error("group {group}: {a} and {b} both take clients' writes")]
    TwoWriters { group: usize, a: NodeId, b: NodeId },
    #[error(
        "group {group}: host {host} acknowledged write {write} at epoch {epoch}, after one of epoch {newer}"
    )]
    StaleAcknowledgement { group: usize, host: usize, write: WriteId, epoch: Epoch, newer: Epoch },
    #[error("group {group}: host {host} did `{what}` of epoch {epoch} after one of epoch {before}")]
    EpochFell { group: usize, host: usize, what: &'static str, epoch: Epoch, before: Epoch },
    #[error("group {group}: epoch {epoch} was opened by host {host} and by host {before}")]
    EpochTwice { group: usize, host: usize, before: usize, epoch: Epoch },
    #[error(
        "group {group}: host {host} followed {master} before it served epoch {epoch} at the VIP"
    )]
    FollowedTooEarly { group: usize, host: usize, master: usize, epoch: Epoch },
    #[error("group {group}: host {host} did `{what}` at epoch {epoch} without a lease of it")]
    ActedWithoutLease { group: usize, host: usize, what: &'static str, epoch: Epoch },
    #[error("group {group}: the port of {host} is open to a master that holds no lease")]
    OpenAtMaster { group: usize, host: NodeId },
    #[error("group {group}: the port of {host} is open to another life of Redis than was granted")]
    OpenToAnotherLife { group: usize, host: NodeId },
    #[error("group {group}: {lost} writes lost by a switchover at epoch {epoch}")]
    SwitchoverLost { group: usize, epoch: Epoch, lost: usize },
    #[error("group {group}: write {write}, confirmed by WAIT, is lost at epoch {epoch}")]
    ConfirmedLost { group: usize, epoch: Epoch, write: WriteId },
    #[error(
        "group {group}: write {write}, lost at epoch {epoch}, was acknowledged {before_end} before the old master's end; the bound is {bound}"
    )]
    LostTooOld { group: usize, epoch: Epoch, write: WriteId, before_end: Span, bound: Span },
    #[error(
        "group {group}: host {host} acknowledged write {write} with {attached} replicas attached; its eligible set has {members} and durability is strict"
    )]
    StrictBroken { group: usize, host: usize, write: WriteId, attached: u64, members: u64 },
    #[error(
        "group {group}: host {host} follows the master of epoch {epoch} without its {writes} acknowledged writes being kept that only it holds"
    )]
    TailDropped { group: usize, host: usize, epoch: Epoch, writes: usize },
    #[error("group {group}: {gets} writes that began anew replaced {had} on host {host}")]
    EmptyReplaced { group: usize, host: usize, had: usize, gets: usize },
    #[error(
        "group {group}: host {host} serves no data at epoch {epoch}; another member holds {elsewhere} writes"
    )]
    EmptyServes { group: usize, host: usize, epoch: Epoch, elsewhere: usize },
    #[error(
        "group {group}: host {host} fences as unreached; {by} nodes were kept from its Redis by anything but the lock, a majority is {needed}"
    )]
    NeedlessMove { group: usize, host: usize, by: usize, needed: usize },
    #[error(
        "group {group}: a cold start at epoch {epoch} lost {lost} writes that the disk of host {host} had"
    )]
    ColdStartLost { group: usize, epoch: Epoch, host: usize, lost: usize },
    #[error("group {group}: write {write} was acknowledged and is not on the master at the end")]
    MissingAtEnd { group: usize, write: WriteId },
    #[error("at log index {applied}: two nodes have different models")]
    ModelsDiffer { applied: u64 },
    #[error(
        "{older} leads in term {term} and {newer} in term {newer_term}: a majority of the voters that {older} goes by is in no later term than its own"
    )]
    TwoMajorities { older: NodeId, term: u64, newer: NodeId, newer_term: u64 },
    #[error("group {group}: nobody serves for {since}, and the leader says no reason")]
    SilentWait { group: usize, since: Span },
    #[error(
        "group {group}: not served {since} after everything was healed; the leader says: {hold}"
    )]
    NotServing { group: usize, since: Span, hold: String },
    #[error("group {group}: a single fault stopped service for {since}; the bound is {bound}")]
    ServiceGap { group: usize, since: Span, bound: Span },
    #[error(
        "group {group}: host {host} does not follow the master {since} after everything was healed"
    )]
    NotFollowing { group: usize, host: usize, since: Span },
    #[error(
        "{since} after everything was healed, a change of the membership is not carried out: {what}"
    )]
    NotChanged { since: Span, what: String },
    #[error("an order to host {host} was never answered")]
    NoAnswer { host: usize },
    #[error("the supervisor of host {host} does not start: {why}")]
    NoStart { host: usize, why: String },
    #[error("a supervisor or the simulator panicked: {message}")]
    Panicked { message: String },
    #[error("two runs of one plan differ: {first:016x} and {second:016x}")]
    NotDeterministic { first: u64, second: u64 },
    #[error(
        "two runs that differ only in their wall clocks do different things: {first:016x}, {second:016x}"
    )]
    WallClockDecides { first: u64, second: u64 },
}

impl Violation {
    /// The name of the checker that found it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::TwoLeases { .. } => "TwoLeases",
            Self::TwoWriters { .. } => "TwoWriters",
            Self::StaleAcknowledgement { .. } => "StaleAcknowledgement",
            Self::EpochFell { .. } => "EpochFell",
            Self::EpochTwice { .. } => "EpochTwice",
            Self::FollowedTooEarly { .. } => "FollowedTooEarly",
            Self::ActedWithoutLease { .. } => "ActedWithoutLease",
            Self::OpenAtMaster { .. } => "OpenAtMaster",
            Self::OpenToAnotherLife { .. } => "OpenToAnotherLife",
            Self::SwitchoverLost { .. } => "SwitchoverLost",
            Self::ConfirmedLost { .. } => "ConfirmedLost",
            Self::LostTooOld { .. } => "LostTooOld",
            Self::StrictBroken { .. } => "StrictBroken",
            Self::TailDropped { .. } => "TailDropped",
            Self::EmptyReplaced { .. } => "EmptyReplaced",
            Self::EmptyServes { .. } => "EmptyServes",
            Self::NeedlessMove { .. } => "NeedlessMove",
            Self::ColdStartLost { .. } => "ColdStartLost",
            Self::MissingAtEnd { .. } => "MissingAtEnd",
            Self::ModelsDiffer { .. } => "ModelsDiffer",
            Self::TwoMajorities { .. } => "TwoMajorities",
            Self::NotChanged { .. } => "NotChanged",
            Self::SilentWait { .. } => "SilentWait",
            Self::NotServing { .. } => "NotServing",
            Self::ServiceGap { .. } => "ServiceGap",
            Self::NotFollowing { .. } => "NotFollowing",
            Self::NoAnswer { .. } => "NoAnswer",
            Self::NoStart { .. } => "NoStart",
            Self::Panicked { .. } => "Panicked",
            Self::NotDeterministic { .. } => "NotDeterministic",
            Self::WallClockDecides { .. } => "WallClockDecides",
        }
    }

    /// Harm that no healing undoes; the rest is service that does not come back, or is interrupted for nothing.
    #[must_use]
    pub const fn is_of_safety(&self) -> bool {
        match self {
            Self::TwoLeases { .. }
            | Self::TwoWriters { .. }
            | Self::StaleAcknowledgement { .. }
            | Self::EpochFell { .. }
            | Self::EpochTwice { .. }
            | Self::FollowedTooEarly { .. }
            | Self::ActedWithoutLease { .. }
            | Self::OpenAtMaster { .. }
            | Self::OpenToAnotherLife { .. }
            | Self::WallClockDecides { .. }
            | Self::SwitchoverLost { .. }
            | Self::ConfirmedLost { .. }
            | Self::LostTooOld { .. }
            | Self::StrictBroken { .. }
            | Self::TailDropped { .. }
            | Self::EmptyReplaced { .. }
            | Self::EmptyServes { .. }
            | Self::ColdStartLost { .. }
            | Self::MissingAtEnd { .. }
            | Self::TwoMajorities { .. }
            | Self::ModelsDiffer { .. } => true,
            Self::NeedlessMove { .. }
            | Self::SilentWait { .. }
            | Self::NotServing { .. }
            | Self::ServiceGap { .. }
            | Self::NotFollowing { .. }
            | Self::NotChanged { .. }
            | Self::NoAnswer { .. }
            | Self::NoStart { .. }
            | Self::Panicked { .. }
            | Self::NotDeterministic { .. } => false,
        }
    }
}

#[derive(Debug)]
pub struct Checks {
    pub majorities: majorities::Majorities,
    pub orders: orders::Orders,
    pub permission: permission::Permission,
    pub ledger: ledger::Ledger,
    pub looks: looks::Looks,
    pub progress: progress::Progress,
    pub strict: strict::Strict,
    pub tails: tails::Tails,
}

impl Checks {
    #[must_use]
    pub fn new(spec: &ClusterSpec, hosts: usize) -> Self {
        Self {
            majorities: majorities::Majorities::default(),
            orders: orders::Orders::default(),
            permission: permission::Permission::default(),
            ledger: ledger::Ledger::new(spec, hosts),
            looks: looks::Looks::default(),
            progress: progress::Progress::new(spec.groups.len()),
            strict: strict::Strict::default(),
            tails: tails::Tails::default(),
        }
    }
}
