//! Nodes that operators add, checked as the configuration file's are.

use std::net::SocketAddr;

use redkeep_core::{ids::node_id, spec::NodeSpec};
use redkeep_proto::admin::v1::AddNodeRequest;
use tonic::Status;

use super::outcome;
use crate::config::{is_name, is_place};

pub(super) fn newcomer(asked: &AddNodeRequest) -> Result<NodeSpec, Status> {
    let AddNodeRequest { name, peer, admin, dry_run: _, forwarded: _ } = asked;
    if !is_name(name) {
        return Err(outcome::no_name(name));
    }
    Ok(NodeSpec {
        id: node_id(name),
        name: name.clone(),
        peer: address("peer", peer)?,
        admin: address("admin", admin)?,
        added: true,
    })
}

fn address(key: &str, text: &str) -> Result<SocketAddr, Status> {
    let read = text.parse::<SocketAddr>().ok().filter(is_place);
    read.ok_or_else(|| outcome::no_address(key, text))
}
