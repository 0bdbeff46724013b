//! Who competes, and what each must be able to do.

use std::fmt::Debug;

use anyhow::Result;

use super::keepalived::{Keepalived, Timers};
use super::oracle::Oracle;
use super::redkeep::Redkeep;
use super::sentinel::Sentinel;
use super::stage::Stage;
use crate::writer::Directory;

/// Something that keeps one of two Redis reachable as the master; its drop ends its threads.
///
/// Its processes end with the lab.
pub(super) trait Contender: Debug {
    /// How clients find the master if not by the VIP.
    fn directory(&self) -> Option<&Directory> {
        None
    }

    /// Host `a` is lost to the others, dead or cut off; only the oracle is told.
    fn host_lost(&self, _it_lives: bool) -> Result<()> {
        Ok(())
    }

    /// Moves the master away from `old`, as an operator would.
    fn switch_over(&self, stage: &Stage, old: &str) -> Result<()>;
}

/// All contenders, in the order of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Oracle,
    Redkeep,
    Sentinel300,
    Sentinel1000,
    KeepalivedTuned,
    KeepalivedSeed,
}

impl Kind {
    pub(super) const ALL: [Kind; 6] = [
        Kind::Oracle,
        Kind::Redkeep,
        Kind::Sentinel300,
        Kind::Sentinel1000,
        Kind::KeepalivedTuned,
        Kind::KeepalivedSeed,
    ];

    /// Its word on the command line and in the tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Oracle => "oracle",
            Kind::Redkeep => "redkeep",
            Kind::Sentinel300 => "sentinel-300",
            Kind::Sentinel1000 => "sentinel-1000",
            Kind::KeepalivedTuned => "keepalived-tuned",
            Kind::KeepalivedSeed => "keepalived-seed",
        }
    }

    /// How it is set up, for the document.
    pub(super) fn description(self) -> &'static str {
        match self {
            Kind::Oracle => super::oracle::DESCRIPTION,
            Kind::Redkeep => super::redkeep::DESCRIPTION,
            Kind::Sentinel300 => super::sentinel::DESCRIPTION_300,
            Kind::Sentinel1000 => super::sentinel::DESCRIPTION_1000,
            Kind::KeepalivedTuned => super::keepalived::DESCRIPTION_TUNED,
            Kind::KeepalivedSeed => super::keepalived::DESCRIPTION_SEED,
        }
    }

    /// Whether it runs as processes of its own, whose cost can be counted.
    pub(super) fn has_processes(self) -> bool {
        self != Kind::Oracle
    }

    /// Starts it beside the running pair and waits until it would act on a fault.
    pub(super) fn start(self, stage: &Stage) -> Result<Box<dyn Contender>> {
        Ok(match self {
            Kind::Oracle => Box::new(Oracle::start(stage)?),
            Kind::Redkeep => Box::new(Redkeep::start(stage)?),
            Kind::Sentinel300 => Box::new(Sentinel::start(stage.lab(), 300)?),
            Kind::Sentinel1000 => Box::new(Sentinel::start(stage.lab(), 1000)?),
            Kind::KeepalivedTuned => Box::new(Keepalived::start(stage, Timers::Tuned)?),
            Kind::KeepalivedSeed => Box::new(Keepalived::start(stage, Timers::Seed)?),
        })
    }
}
