//! Tricky exchanges of the protocol, step by step. `UPDATE_GOLDEN=1` writes what the files should say; read the difference.

mod script;
mod world;

use std::path::Path;

#[allow(
    clippy::disallowed_methods,
    reason = "the golden text is rewritten when somebody asks for it"
)]
fn check(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts").join(name);
    let text = std::fs::read_to_string(&path).expect("a script");
    let now = script::play(&text);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, now).expect("written");
        return;
    }
    let (want, got): (Vec<&str>, Vec<&str>) = (text.lines().collect(), now.lines().collect());
    if let Some(at) = (0..want.len().max(got.len())).find(|i| want.get(*i) != got.get(*i)) {
        panic!("{name}, line {}: wanted {:?}, got {:?}\n{now}", at + 1, want.get(at), got.get(at));
    }
}

macro_rules! scripts {
    ($($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            check(concat!(stringify!($name), ".txt"));
        })*

        #[test]
        fn every_file_is_played() {
            let names = [$(concat!(stringify!($name), ".txt")),*];
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
            for file in std::fs::read_dir(folder).expect("a folder") {
                let file = file.expect("a file").file_name();
                assert!(names.iter().any(|name| *name == file), "{file:?} is not listed");
            }
        }
    };
}

scripts! {
    adoption_of_a_running_pair,
    adopted_master_that_never_opened,
    a_grant_that_is_late_after_rearming,
    a_fence_report_that_races_a_grant,
    a_decision_in_flight_when_the_leader_changes,
    a_deaf_holder,
    a_switchover_that_the_target_does_not_confirm,
    a_switchover_that_meets_a_ping_of_redis,
    cold_start,
    an_old_master_that_returns,
}
