//! Entrances for the fuzzers (`crates/fuzz`): every reader of what a Redis says. Not part of the product.

use super::connection::{checked, judge_greeting, text};
use super::control::RoleReply;
use super::control_link::parse_control_clients;
use super::observation::{Observation, ReplicationView, ServerIdentity};
use super::probe::config_value;

/// A control connection's name, for lists of clients.
pub const OWN_NAME: &str = "redkeep-control-11-0";

/// A reply in RESP, given to every reader; each takes it or refuses it.
///
/// # Panics
/// What one reader made of it contradicts another.
pub fn reply(bytes: &[u8]) {
    let Ok(value) = redis::parse_redis_value(bytes) else { return };
    let Ok(value) = checked("INFO", value) else { return };
    let _ = RoleReply::read(value.clone());
    let _ = config_value(value.clone());
    if let Ok(text) = text("INFO", value) {
        info(&text);
        clients(&text);
    }
}

/// The text of `INFO`.
///
/// # Panics
/// What one reader made of it contradicts another.
pub fn info(text: &str) {
    let observation = Observation::parse(text);
    let view = ReplicationView::parse(text);
    let identity = ServerIdentity::parse(text);
    if let Ok(observation) = observation {
        let _ = observation.write_refusal();
        let view = view.expect("its fields are among those of the whole");
        let identity = identity.expect("its fields are among those of the whole");
        assert_eq!((view.offset, &view.role), (observation.offset, &observation.role));
        assert_eq!(view.replicas, observation.replicas);
        assert_eq!(identity.run_id, observation.run_id);
    }
}

/// The text of `CLIENT LIST`.
pub fn clients(text: &str) {
    if let Ok(others) = parse_control_clients(text, OWN_NAME) {
        assert!(text.contains(OWN_NAME), "{} others in a list without ourselves", others.len());
    }
}

/// The first line on a connection.
pub fn greeting(line: &str) {
    for command in ["PING", "AUTH"] {
        let _ = judge_greeting(line, command);
    }
}
