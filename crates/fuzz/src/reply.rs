//! Target `redis_reply`: whatever calls itself Redis, the agent takes or refuses what it says.

use redkeep_agent::redis::fuzzing;

pub(crate) fn redis_reply(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind % 4 {
        0 => fuzzing::reply(bytes),
        1 => fuzzing::info(&String::from_utf8_lossy(bytes)),
        2 => fuzzing::clients(&String::from_utf8_lossy(bytes)),
        _ => fuzzing::greeting(&String::from_utf8_lossy(bytes)),
    }
}
