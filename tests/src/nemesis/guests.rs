//! Nodes that join the cluster during a run and leave it again.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::act::NODES;
use super::run::LEASE_TTL;
use crate::lab::{Builder, Lab};
use crate::pair::Pair;
use crate::process::wait_until;
use crate::supervisor::{ADMIN_PORT, ClusterFile, PEER_PORT, Supervisor, ctl, status};

/// Each host joins once: ids do not come back.
const HOSTS: u8 = 8;
const FIRST_NUMBER: u8 = 61;
const LIMIT: Duration = Duration::from_secs(30);

/// Who has been asked to join.
#[derive(Debug, Default)]
pub(super) struct Guests {
    asked: u8,
    /// Those that are not known to have left.
    there: BTreeMap<String, Option<Supervisor>>,
}

impl Guests {
    /// Hosts for all that may join in a run.
    pub(super) fn hosts(lab: Builder) -> Builder {
        (0..HOSTS).fold(lab, |lab, number| lab.host(&name(number), FIRST_NUMBER + number))
    }

    pub(super) fn next_name(&self) -> Option<String> {
        (self.asked < HOSTS).then(|| name(self.asked))
    }

    /// Adds the node by `to`, and starts its supervisor as an operator would.
    pub(super) fn invite(&mut self, pair: &Pair, guest: &str, to: &str) -> Result<()> {
        self.asked += 1;
        // Whatever becomes of the order: it may be carried out.
        self.there.insert(guest.to_owned(), None);
        let host = pair.host(guest)?;
        let at = |port: u16| format!("{}:{port}", host.address());
        let (peer, admin) = (at(PEER_PORT), at(ADMIN_PORT));
        order(pair.lab(), to, &["node", "add", guest, "--peer", &peer, "--admin", &admin])?;
        let mut file = ClusterFile::founding(pair.lab(), LEASE_TTL)?;
        file.nodes.push((guest.to_owned(), host.address()));
        file.joining = Some(guest.to_owned());
        self.there.insert(guest.to_owned(), Some(Supervisor::start(host, &file)?));
        Ok(())
    }

    /// Removes the node by `to`, then ends its supervisor. What fails is done by [`Guests::dismiss_all`].
    pub(super) fn dismiss(&mut self, pair: &Pair, guest: &str, to: &str) -> Result<()> {
        if is_known(&status(pair.lab(), to)?, guest) {
            order(pair.lab(), to, &["node", "remove", guest])?;
        }
        self.end(guest)
    }

    /// All are gone when this returns.
    pub(super) fn dismiss_all(&mut self, pair: &Pair) -> Result<()> {
        for guest in self.there.keys().cloned().collect::<Vec<_>>() {
            let mut last = None;
            let gone = wait_until("a guest to leave", LIMIT, || {
                let to = NODES.into_iter().find(|node| status(pair.lab(), node).is_ok())?;
                last = Some(self.dismiss(pair, &guest, to));
                matches!(last, Some(Ok(()))).then_some(())
            });
            gone.with_context(|| format!("{guest}: {last:?}"))?;
        }
        Ok(())
    }

    fn end(&mut self, guest: &str) -> Result<()> {
        if let Some(Some(supervisor)) = self.there.remove(guest)
            && supervisor.process().is_running()
        {
            supervisor.process().kill()?;
        }
        Ok(())
    }
}

fn name(number: u8) -> String {
    format!("x{}", number + 1)
}

fn is_known(status: &Value, guest: &str) -> bool {
    let nodes = status["nodes"].as_array().map_or(&[][..], Vec::as_slice);
    nodes.iter().any(|node| node["name"] == *guest)
}

fn order(lab: &Lab, to: &str, words: &[&str]) -> Result<()> {
    let done = ctl(lab, to, to, words)?;
    ensure!(done.code == Some(0), "{}: {:?} {}", words.join(" "), done.code, done.stderr.trim());
    Ok(())
}
