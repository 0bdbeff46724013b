//! A node whose data directory was lost must not vote under its old id: it may have voted already and forgotten it.
//!
//! Each data directory has a random id. At start a node tells it to its peers, who remember it for ever. A node with a
//! *fresh* directory waits for the answers of so many peers that they and it are a majority (which Raft needs anyway)
//! and refuses to run when one of them knows its node by another directory.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use redkeep_core::{NodeId, spec::NodeSpec};
use redkeep_proto::peer::v1::{IdentifyRequest, peer_service_client::PeerServiceClient};
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{Local, PROTOCOL_VERSION, client, client::End, patience};

/// Random id of a data directory.
pub(crate) type DirId = [u8; 16];

/// The directories that peers were met by. A small file of its own: it is written once per peer in a cluster's life.
#[derive(Debug)]
pub(crate) struct KnownPeers {
    path: PathBuf,
    known: Mutex<BTreeMap<NodeId, DirId>>,
}

impl KnownPeers {
    /// # Errors
    /// The file cannot be read, or is not one of ours.
    pub(crate) fn open(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join("peers");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let mut known = BTreeMap::new();
        for line in text.lines() {
            let (node, dir) = parse(line).ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{}: not a peer: {line:?}", path.display()),
                )
            })?;
            known.insert(node, dir);
        }
        Ok(Self { path, known: Mutex::new(known) })
    }

    /// The directory `node` was first met by; none = it is met now, and that is on disk when this returns.
    ///
    /// # Errors
    /// The file cannot be written; nothing is remembered then.
    pub(crate) fn meet(&self, node: NodeId, dir: DirId) -> io::Result<Option<DirId>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(first) = known.get(&node) {
            return Ok(Some(*first));
        }
        let mut with = known.clone();
        with.insert(node, dir);
        let text: String = with.iter().map(|(node, dir)| show(*node, dir)).collect();
        write_durably(&self.path, &text)?;
        *known = with;
        Ok(None)
    }
}

fn show(node: NodeId, dir: &DirId) -> String {
    format!("{:016x} {:032x}\n", node.0, u128::from_be_bytes(*dir))
}

fn parse(line: &str) -> Option<(NodeId, DirId)> {
    let (node, dir) = line.split_once(' ')?;
    let dir = u128::from_str_radix(dir, 16).ok()?.to_be_bytes();
    Some((NodeId(u64::from_str_radix(node, 16).ok()?), dir))
}

/// Whole or not at all: write beside, sync, rename, sync the directory.
fn write_durably(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = fs::File::create(&beside)?;
    io::Write::write_all(&mut file, text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    match path.parent() {
        Some(directory) => fs::File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// Why a node with a fresh directory must not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MustNotRun {
    #[error(
        "node {node:?} is known to {peer:?} by another data directory: this one is new, and a node that lost its log must not vote under its old id\n    \
         mend: put the old directory back; if it is lost for good, replace the node under a new name (redkeepctl node add)"
    )]
    KnownByAnother { node: String, peer: String },
    #[error(
        "node {node:?} was added to a running cluster, says {peer:?}: it has no membership of its own to start from\n    \
         mend: write `join = true` into its configuration"
    )]
    MustJoin { node: String, peer: String },
}

/// A data directory, as peers are told of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Directory {
    pub(crate) id: DirId,
    pub(crate) fresh: bool,
    /// Its node takes its membership from the running cluster.
    pub(crate) join: bool,
}

/// Tell every peer who we are, again and again until each answered. Completes when enough have (a fresh directory), or
/// at once.
///
/// # Errors
/// [`MustNotRun`] if the directory is fresh, and a peer knows this node by another or as one that must join.
pub(crate) async fn introduce(
    local: &Local,
    nodes: &[NodeSpec],
    directory: Directory,
) -> Result<(), MustNotRun> {
    let Directory { id: dir, fresh, join } = directory;
    let name =
        nodes.iter().find(|n| n.id == local.node).map(|n| n.name.clone()).unwrap_or_default();
    let mut asked = JoinSet::new();
    for peer in nodes.iter().filter(|n| n.id != local.node).cloned() {
        let local = local.clone();
        asked.spawn(async move {
            let mut said = String::new();
            loop {
                match ask(&local, &peer, dir).await {
                    Ok(answer) => return (peer, answer),
                    Err(End::Refused(reason)) if reason != said => {
                        tracing::error!(peer = %peer.name, %reason, "the peer does not say whether it knows this node");
                        said = reason;
                    }
                    Err(End::Refused(_) | End::Silent | End::Closed) => {}
                }
                sleep(Duration::from_millis(100)).await;
            }
        });
    }
    if !fresh {
        tokio::spawn(async move { while asked.join_next().await.is_some() {} });
        return Ok(());
    }
    let enough = nodes.len() / 2;
    tracing::info!(
        enough,
        "the data directory is new: waiting for peers to say whether they know this node"
    );
    let mut answers = 0;
    while answers < enough {
        let Some(Ok((peer, answer))) = asked.join_next().await else { continue };
        if answer.known_by.is_some_and(|known| known != dir) {
            return Err(MustNotRun::KnownByAnother { node: name, peer: peer.name });
        }
        if answer.added && !join {
            return Err(MustNotRun::MustJoin { node: name, peer: peer.name });
        }
        answers += 1;
    }
    tokio::spawn(async move { while asked.join_next().await.is_some() {} });
    Ok(())
}

/// What a peer says of this node.
struct Known {
    /// The directory it knew this node by before.
    known_by: Option<DirId>,
    added: bool,
}

async fn ask(local: &Local, peer: &NodeSpec, dir: DirId) -> Result<Known, End> {
    let limit = patience(local.lease_ttl).max(Duration::from_millis(500));
    let answer = timeout(limit, async {
        let stream = TcpStream::connect(peer.peer).await.map_err(|_| End::Closed)?;
        let channel = client::channel(local, peer, stream).await;
        let channel = channel.map_err(|error| client::opening_failure(&error))?;
        let request = IdentifyRequest {
            cluster: local.cluster.clone(),
            node: local.node.0,
            dir_id: dir.to_vec(),
            protocol_version: PROTOCOL_VERSION,
        };
        let answer = PeerServiceClient::new(channel).identify(request).await;
        answer.map(tonic::Response::into_inner).map_err(|status| client::end_of(&status))
    });
    let answer = answer.await.map_err(|_elapsed| End::Silent)??;
    let known_by = DirId::try_from(answer.known_dir_id.as_slice()).ok().filter(|_| answer.known);
    Ok(Known { known_by, added: answer.added })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_directory_of_a_peer_is_remembered_across_restarts() {
        let directory = std::env::temp_dir().join(format!("redkeep-known-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let (first, second) = ([1; 16], [2; 16]);
        let known = KnownPeers::open(&directory).unwrap();
        assert_eq!(known.meet(NodeId(7), first).unwrap(), None);
        assert_eq!(known.meet(NodeId(7), second).unwrap(), Some(first));
        assert_eq!(known.meet(NodeId(8), second).unwrap(), None);
        let known = KnownPeers::open(&directory).unwrap();
        assert_eq!(known.meet(NodeId(7), second).unwrap(), Some(first));
        assert_eq!(known.meet(NodeId(8), second).unwrap(), Some(second));
        fs::write(directory.join("peers"), "rubbish\n").unwrap();
        assert!(KnownPeers::open(&directory).is_err());
        fs::remove_dir_all(&directory).unwrap();
    }
}
