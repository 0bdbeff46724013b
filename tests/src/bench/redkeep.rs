//! This project's supervisors on `a`, `b` and `w`.

use anyhow::{Result, ensure};

use super::contender::Contender;
use super::stage::{LIMIT, Stage};
use crate::pair::{GROUP, is_healthy};
use crate::supervisor::{ClusterFile, Supervisor, ctl, wait_status};

pub(super) const DESCRIPTION: &str = "three `redkeepd` (a, b, witness w), `lease_ttl = \"300ms\"`, \
    everything else default; clients use the VIP; planned: `redkeepctl switchover`";

#[derive(Debug)]
pub(super) struct Redkeep;

impl Redkeep {
    pub(super) fn start(stage: &Stage) -> Result<Self> {
        let lab = stage.lab();
        let file = ClusterFile::founding(lab, "300ms")?;
        for (name, _) in &file.nodes {
            Supervisor::start(lab.host(name)?, &file)?;
        }
        wait_status(lab, "w", "the pair to be healthy", LIMIT, is_healthy)?;
        Ok(Redkeep)
    }
}

impl Contender for Redkeep {
    fn switch_over(&self, stage: &Stage, _old: &str) -> Result<()> {
        let outcome = ctl(stage.lab(), "w", "w", &["switchover", GROUP, "--wait", "--yes"])?;
        ensure!(outcome.code == Some(0), "switchover: {}{}", outcome.stdout, outcome.stderr);
        Ok(())
    }
}
