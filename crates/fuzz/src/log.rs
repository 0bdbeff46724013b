//! Target `wal_record`: what the log holds, from the record on the disk to the model that its commands make.

use redkeep_core::{
    GroupId,
    codec::{decode_command, decode_model, encode_command, encode_model},
    model::{HISTORY_MAX, Model},
};
use redkeep_wal::fuzzing;

pub(crate) fn wal_record(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind % 8 {
        0 => command(bytes),
        1 => drop(model(bytes)),
        2 => log(bytes),
        3 => fuzzing::sealed(bytes),
        kind => fuzzing::content(kind - 4, bytes),
    }
}

fn command(bytes: &[u8]) {
    if let Ok(command) = decode_command(bytes) {
        let again = decode_command(&encode_command(&command)).expect("what was understood once");
        assert_eq!(again, command);
    }
}

fn model(bytes: &[u8]) -> Option<Model> {
    let model = decode_model(bytes).ok()?;
    let again = decode_model(&encode_model(&model)).expect("what was understood once");
    assert_eq!(again, model);
    Some(model)
}

/// A snapshot and the commands after it: epochs only rise, and the history stays bounded.
fn log(bytes: &[u8]) {
    let mut parts = crate::parts(bytes);
    let Some(mut model) = parts.next().and_then(model) else { return };
    let history = model.history.len().max(HISTORY_MAX);
    for (index, part) in (100..).zip(parts) {
        let Ok(command) = decode_command(part) else { return };
        let before = model.clone();
        model.apply(index, 7, command);
        for (group, was) in &before.groups {
            let is = &model.groups[group];
            assert!(is.epoch() >= was.epoch(), "epoch of {group:?} fell");
            let moved = is.master() != was.master();
            assert!(
                !moved || is.epoch() > was.epoch(),
                "master of {group:?} moved within an epoch"
            );
        }
        assert!(model.history.len() <= history);
    }
    // A snapshot of it must be one that the next start can read.
    let snapshot = encode_model(&model);
    assert_eq!(decode_model(&snapshot).expect("a snapshot reads back"), model);
    let _ = model.group(&GroupId::new("pair"));
}
