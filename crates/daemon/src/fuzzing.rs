//! Entrances for the fuzzers (`crates/fuzz`): what reads foreign input, with what must hold of it. Not part of the program.

use std::path::Path;

use prost::Message as _;
use redkeep_core::{NodeId, message::PeerMessage};
use redkeep_proto::peer::v1 as pb;

use crate::{
    config::{self, Config, ConfigError},
    peer::codec,
};

/// An envelope's messages as the receiver takes them, with the sender and number it claims.
///
/// # Panics
/// A message that was understood does not survive being sent on.
#[must_use]
pub fn envelope(bytes: &[u8]) -> Option<(NodeId, u64, Vec<PeerMessage>)> {
    let envelope = pb::ExchangeRequest::decode(bytes).ok()?;
    let understood = |message: pb::Message| codec::decode(message).ok();
    let messages: Vec<PeerMessage> = envelope.messages.into_iter().filter_map(understood).collect();
    for message in &messages {
        let again = codec::decode(codec::encode(message)).expect("what was understood once");
        assert_eq!(again, *message, "changed on its way");
    }
    Some((NodeId(envelope.from), envelope.seq, messages))
}

/// An envelope as a node sends it.
#[must_use]
pub fn sent(from: NodeId, seq: u64, messages: &[PeerMessage]) -> Vec<u8> {
    let envelope = pb::ExchangeRequest {
        cluster: "demo".to_owned(),
        from: from.0,
        to: 1,
        protocol_version: crate::peer::PROTOCOL_VERSION,
        seq,
        messages: messages.iter().map(codec::encode).collect(),
        stream: 1,
        receipt: None,
    };
    envelope.encode_to_vec()
}

/// A configuration: refused with a reason for each problem (false), or written out in full and read back to the same (true).
///
/// # Panics
/// Neither of the two.
pub fn config(text: &str) -> bool {
    let path = Path::new("redkeep.toml");
    let config = match Config::parse(text, path) {
        Ok(config) => config,
        Err(ConfigError::Invalid { problems, .. }) => {
            assert!(!problems.is_empty(), "refused without a reason");
            let told = |p: &config::Problem| !p.rule.is_empty() && !p.mend.is_empty();
            assert!(problems.iter().all(told), "{problems:?}");
            return false;
        }
        Err(ConfigError::Syntax { .. } | ConfigError::Read { .. }) => return false,
    };
    assert!(!config::consequences(&config).is_empty());
    let effective = config::effective(&config);
    let again = Config::parse(&effective, path)
        .unwrap_or_else(|error| panic!("the effective file is refused: {error:?}\n{effective}"));
    assert_eq!(config::effective(&again), effective);
    assert_eq!(format!("{again:?}"), format!("{config:?}"), "{effective}");
    true
}
