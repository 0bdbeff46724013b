//! `redis-7.0-*` are recordings; the other texts carry the field names and order of their versions' `genRedisInfoString`.
#![allow(clippy::unwrap_used)]

use super::*;

const REDIS_4_0_REPLICA: &str = include_str!("testdata/redis-4.0-replica.txt");
const REDIS_6_2_LOADING: &str = include_str!("testdata/redis-6.2-loading.txt");
const REDIS_7_0_MASTER: &str = include_str!("testdata/redis-7.0-master.txt");
const REDIS_7_0_REPLICA: &str = include_str!("testdata/redis-7.0-replica.txt");
const VALKEY_8_0_MASTER: &str = include_str!("testdata/valkey-8.0-master.txt");

const ALL: [&str; 5] =
    [REDIS_4_0_REPLICA, REDIS_6_2_LOADING, REDIS_7_0_MASTER, REDIS_7_0_REPLICA, VALKEY_8_0_MASTER];

fn settings(stop: bool, save: bool) -> Option<WriteSettings> {
    Some(WriteSettings {
        stop_writes_on_bgsave_error: stop,
        has_save_points: save,
        min_replicas_to_write: 0,
    })
}

#[test]
fn master_of_7_0_is_read() {
    let seen = Observation::parse(REDIS_7_0_MASTER).unwrap();
    assert_eq!(seen.role, Role::Master);
    assert_eq!(seen.version, Version { major: 7, minor: 0, patch: 15 });
    assert_eq!(seen.flavour, Flavour::Redis);
    assert_eq!((seen.run_id.len(), seen.replication_id.len()), (40, 40));
    assert_eq!(seen.replication_id2, None);
    assert_eq!(seen.second_repl_offset, None);
    assert_eq!(seen.replicas.len(), 1);
    assert!(seen.replicas[0].online && seen.replicas[0].offset <= seen.offset);
    assert_eq!(seen.replicas[0].port, 27102);
    assert_eq!(seen.backlog_from, NonZeroU64::new(1));
    assert_eq!(seen.keys, 1);
    assert_eq!(seen.priority, None);
    assert!(!seen.is_read_only_replica() && !seen.failover_in_progress && !seen.loading);
}

#[test]
fn replica_of_7_0_is_read() {
    let seen = Observation::parse(REDIS_7_0_REPLICA).unwrap();
    let Role::Replica(link) = &seen.role else { panic!("{:?}", seen.role) };
    assert_eq!((link.master_host.as_str(), link.master_port), ("127.0.0.1", 27101));
    assert!(link.link_up && link.read_only && !link.syncing);
    assert_eq!(
        (link.link_down_since_s, link.last_io_s, link.sync_last_io_s),
        (None, Some(8), None)
    );
    assert_eq!(seen.priority, Some(100));
    assert!(seen.is_read_only_replica());
    assert!(seen.offset > 0);
}

#[test]
fn replica_of_4_0_that_synchronises_is_read() {
    let seen = Observation::parse(REDIS_4_0_REPLICA).unwrap();
    let Role::Replica(link) = &seen.role else { panic!("{:?}", seen.role) };
    assert!(!link.link_up && link.syncing && link.read_only);
    assert_eq!((link.link_down_since_s, link.last_io_s), (Some(4), None));
    assert_eq!(link.sync_last_io_s, Some(0));
    assert_eq!(seen.version, Version { major: 4, minor: 0, patch: 14 });
    assert_eq!((seen.offset, seen.keys), (1, 0));
    assert!(!seen.failover_in_progress);
}

#[test]
fn loading_and_disk_errors_of_6_2_are_read() {
    let mut seen = Observation::parse(REDIS_6_2_LOADING).unwrap();
    assert!(seen.loading);
    assert_eq!(seen.loading_eta_s, Some(27));
    assert_eq!(seen.keys, 120);
    assert_eq!(seen.second_repl_offset, Some(90100));
    assert_eq!(seen.replication_id2.as_deref(), Some("2222222222222222222222222222222222222222"));
    seen.write_settings = settings(true, true);
    assert_eq!(seen.write_refusal(), Some(WriteRefusal::BgsaveError));
    // The seed's setting: a failed BGSAVE stops nothing, an unwritable AOF does.
    seen.write_settings = settings(false, true);
    assert_eq!(seen.write_refusal(), Some(WriteRefusal::AofWriteError));
    seen.write_settings = settings(true, false);
    seen.persistence.aof_enabled = false;
    assert_eq!(seen.write_refusal(), None);
    seen.write_settings = None;
    assert_eq!(seen.write_refusal(), Some(WriteRefusal::BgsaveError));
}

#[test]
fn valkey_and_replicas_in_full_sync_are_read() {
    let seen = Observation::parse(VALKEY_8_0_MASTER).unwrap();
    assert_eq!(seen.flavour, Flavour::Valkey);
    assert_eq!(seen.version, Version { major: 7, minor: 2, patch: 4 });
    assert!(seen.failover_in_progress && seen.persistence.bgsave_in_progress);
    assert_eq!(seen.replicas.len(), 2);
    assert!(seen.replicas[0].online && !seen.replicas[1].online);
    assert_eq!((seen.replicas[1].ip.as_str(), seen.replicas[1].lag_s), ("fd00::3", 0));
}

#[test]
fn replica_that_never_synchronised_has_offset_zero_not_the_largest() {
    let text = REDIS_7_0_REPLICA
        .lines()
        .map(|line| match line.starts_with("slave_repl_offset:") {
            true => "slave_repl_offset:-1",
            false => line,
        })
        .collect::<Vec<_>>()
        .join("\r\n");
    assert_eq!(Observation::parse(&text).unwrap().offset, 0);
}

#[test]
fn each_missing_required_field_is_named() {
    let required = [
        "run_id",
        "process_id",
        "redis_version",
        "role",
        "master_replid",
        "master_replid2",
        "second_repl_offset",
        "loading",
        "rdb_last_bgsave_status",
        "aof_last_write_status",
        "aof_enabled",
    ];
    for field in required {
        let text: Vec<&str> =
            REDIS_7_0_MASTER.lines().filter(|line| line.split(':').next() != Some(field)).collect();
        assert_eq!(Observation::parse(&text.join("\n")), Err(InfoError::Missing { field }));
    }
    for field in ["master_host", "master_link_status", "slave_read_only", "slave_repl_offset"] {
        let text: Vec<&str> = REDIS_7_0_REPLICA
            .lines()
            .filter(|line| line.split(':').next() != Some(field))
            .collect();
        assert_eq!(Observation::parse(&text.join("\n")), Err(InfoError::Missing { field }));
    }
}

/// Every truncation and every single-byte change either parses or names a field; none panics.
#[test]
fn damaged_text_never_panics() {
    for text in ALL {
        for end in (0..text.len()).filter(|&end| text.is_char_boundary(end)) {
            let _ = Observation::parse(&text[..end]);
            let _ = ReplicationView::parse(&text[..end]);
            let _ = ServerIdentity::parse(&text[..end]);
        }
        for at in 0..text.len() {
            for byte in [b':', b'-', b'9', b'\n', b','] {
                let mut bytes = text.as_bytes().to_vec();
                bytes[at] = byte;
                let _ = Observation::parse(&String::from_utf8_lossy(&bytes));
            }
        }
    }
}
