//! What one look at a Redis shows: the text of `INFO`, read strictly.
//!
//! Pure functions. A field that every supported version has (Redis 4.0 and later, Valkey) is required; later ones are
//! optional. Deliberately absent: any judgement of what a role or an offset means for the group.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::str::FromStr;

/// Family of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// Redis.
    Redis,
    /// Valkey; its `redis_version` says which Redis it is compatible with.
    Valkey,
}

/// Version by `redis_version`, which decides the commands; Valkey says 7.2.4 there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Major.
    pub major: u16,
    /// Minor.
    pub minor: u16,
    /// Patch.
    pub patch: u16,
}

/// Replication role and, for a replica, its link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// `role:master`.
    Master,
    /// `role:slave`.
    Replica(ReplicaLink),
}

/// A replica's view of its master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaLink {
    /// `master_host`.
    pub master_host: String,
    /// `master_port`.
    pub master_port: u16,
    /// `master_link_status:up`.
    pub link_up: bool,
    /// Seconds since the link went down; `None` while up, or if it never was up.
    pub link_down_since_s: Option<u64>,
    /// Seconds since anything came from the master (`master_last_io_seconds_ago`); `None` while the link is down.
    pub last_io_s: Option<u64>,
    /// A full synchronisation is going on: the data set is incomplete.
    pub syncing: bool,
    /// Seconds since anything of it came (`master_sync_last_io_seconds_ago`).
    pub sync_last_io_s: Option<u64>,
    /// `slave_read_only:1`: clients cannot write here.
    pub read_only: bool,
}

/// One `slaveN:` line of a master (or of a replica with replicas).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaLine {
    /// Address as Redis sees it, or as announced.
    pub ip: String,
    /// Listening port as announced.
    pub port: u16,
    /// Whether its state is `online`; else it is being synchronised.
    pub online: bool,
    /// Last acknowledged offset. Acknowledgements come once a second, or at once after `WAIT`.
    pub offset: u64,
    /// Seconds since the last acknowledgement.
    pub lag_s: u64,
}

/// Health of the disk writes, from `INFO persistence`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Persistence {
    /// `rdb_last_bgsave_status:ok`.
    pub last_bgsave_ok: bool,
    /// `aof_last_write_status:ok`.
    pub last_aof_write_ok: bool,
    /// `aof_enabled:1`.
    pub aof_enabled: bool,
    /// `rdb_bgsave_in_progress:1`.
    pub bgsave_in_progress: bool,
    /// `rdb_last_save_time`, Unix seconds by the wall clock of the host; for telling that a BGSAVE has ended.
    pub last_save_unix_s: u64,
}

/// Settings that decide whether writes are refused; read by `CONFIG GET` once for each connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteSettings {
    /// `stop-writes-on-bgsave-error yes`.
    pub stop_writes_on_bgsave_error: bool,
    /// `save` names at least one point. Redis stops writes for a failed BGSAVE only then.
    pub has_save_points: bool,
    /// `min-replicas-to-write` (`min-slaves-to-write` before Redis 5).
    pub min_replicas_to_write: u32,
}

/// Why a master with this state refuses writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteRefusal {
    /// The last BGSAVE failed and `stop-writes-on-bgsave-error` is on.
    BgsaveError,
    /// The append-only file cannot be written.
    AofWriteError,
}

/// One look at a Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// `run_id`: new at every start.
    pub run_id: String,
    /// `process_id`, in the pid namespace of Redis.
    pub process_id: u32,
    /// Redis or Valkey.
    pub flavour: Flavour,
    /// `redis_version`.
    pub version: Version,
    /// Role.
    pub role: Role,
    /// `master_replid`: the replication history.
    pub replication_id: String,
    /// `master_replid2`: the history before the last promotion; `None` if all zeroes.
    pub replication_id2: Option<String>,
    /// Offset up to which `replication_id2` is valid.
    pub second_repl_offset: Option<u64>,
    /// `master_repl_offset` of a master, `slave_repl_offset` of a replica; 0 where Redis says less.
    pub offset: u64,
    /// First offset in the backlog: who has all before it can go on without a full copy. `None` without a backlog.
    pub backlog_from: Option<NonZeroU64>,
    /// Attached replicas.
    pub replicas: Vec<ReplicaLine>,
    /// The data set is being read from disk.
    pub loading: bool,
    /// Redis's estimate for that, in seconds.
    pub loading_eta_s: Option<u64>,
    /// Keys in all databases.
    pub keys: u64,
    /// `slave_priority`; 0 means never to be promoted. Only replicas say it.
    pub priority: Option<u32>,
    /// A `FAILOVER` command is under way (Redis 6.2 and later).
    pub failover_in_progress: bool,
    /// Health of disk writes.
    pub persistence: Persistence,
    /// `None` where `CONFIG GET` is not permitted.
    pub write_settings: Option<WriteSettings>,
}

/// Why an INFO text was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InfoError {
    /// A field that every supported version has is missing.
    #[error("INFO has no field {field}")]
    Missing {
        /// Its name.
        field: &'static str,
    },
    /// A field has a value of the wrong shape.
    #[error("INFO field {field} has an unexpected value")]
    Malformed {
        /// Its name.
        field: &'static str,
    },
}

impl Persistence {
    /// Reads `INFO persistence`.
    ///
    /// # Errors
    /// [`InfoError`] names the field.
    pub fn parse(info: &str) -> Result<Self, InfoError> {
        Fields::read(info).persistence()
    }
}

impl Observation {
    /// Reads one or several sections of `INFO`, concatenated: server, replication, persistence, keyspace.
    ///
    /// # Errors
    /// [`InfoError`] names the field.
    pub fn parse(info: &str) -> Result<Self, InfoError> {
        let fields = Fields::read(info);
        let role = fields.role()?;
        let offset_field = match role {
            Role::Master => "master_repl_offset",
            Role::Replica(_) => "slave_repl_offset",
        };
        let loading = fields.flag("loading")?;
        let replication_id2 = fields.text("master_replid2")?;
        Ok(Self {
            run_id: fields.text("run_id")?.to_owned(),
            process_id: fields.number("process_id")?,
            flavour: fields.flavour(),
            version: fields.version()?,
            replication_id: fields.text("master_replid")?.to_owned(),
            replication_id2: (!replication_id2.bytes().all(|byte| byte == b'0'))
                .then(|| replication_id2.to_owned()),
            second_repl_offset: unsigned(fields.number("second_repl_offset")?),
            offset: unsigned(fields.number(offset_field)?).unwrap_or(0),
            backlog_from: fields.backlog_from()?,
            replicas: fields.replicas()?,
            loading,
            loading_eta_s: match loading {
                true => fields.optional_number::<i64>("loading_eta_seconds")?.and_then(unsigned),
                false => None,
            },
            keys: fields.keys()?,
            priority: fields.optional_number("slave_priority")?,
            failover_in_progress: fields
                .optional("master_failover_state")
                .is_some_and(|state| state != "no-failover"),
            persistence: fields.persistence()?,
            write_settings: None,
            role,
        })
    }

    /// Whether this Redis refuses writes for a disk error, or would as a master (`MISCONF`).
    ///
    /// Follows `writeCommandsDeniedByDiskError` in Redis's `server.c`. Unknown settings count as Redis's defaults.
    #[must_use]
    pub fn write_refusal(&self) -> Option<WriteRefusal> {
        let stops = self.write_settings.is_none_or(|settings| {
            settings.stop_writes_on_bgsave_error && settings.has_save_points
        });
        if stops && !self.persistence.last_bgsave_ok {
            return Some(WriteRefusal::BgsaveError);
        }
        (self.persistence.aof_enabled && !self.persistence.last_aof_write_ok)
            .then_some(WriteRefusal::AofWriteError)
    }

    /// Whether this is a replica that no client can write to: what may have an open port without a lease.
    #[must_use]
    pub fn is_read_only_replica(&self) -> bool {
        match &self.role {
            Role::Master => false,
            Role::Replica(link) => link.read_only,
        }
    }
}

/// Redis writes -1 where it has no number.
fn unsigned(number: i64) -> Option<u64> {
    u64::try_from(number).ok()
}

/// The `key:value` lines of INFO.
struct Fields<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Fields<'a> {
    fn read(info: &'a str) -> Self {
        Self(info.lines().filter_map(|line| line.trim_end().split_once(':')).collect())
    }

    fn optional(&self, field: &str) -> Option<&'a str> {
        self.0.get(field).copied()
    }

    fn text(&self, field: &'static str) -> Result<&'a str, InfoError> {
        self.optional(field).ok_or(InfoError::Missing { field })
    }

    fn number<T: FromStr>(&self, field: &'static str) -> Result<T, InfoError> {
        self.text(field)?.parse().map_err(|_| InfoError::Malformed { field })
    }

    fn optional_number<T: FromStr>(&self, field: &'static str) -> Result<Option<T>, InfoError> {
        match self.optional(field) {
            Some(_) => self.number(field).map(Some),
            None => Ok(None),
        }
    }

    fn flag(&self, field: &'static str) -> Result<bool, InfoError> {
        match self.text(field)? {
            "0" => Ok(false),
            "1" => Ok(true),
            _ => Err(InfoError::Malformed { field }),
        }
    }

    fn flavour(&self) -> Flavour {
        match self.optional("server_name") {
            Some("valkey") => Flavour::Valkey,
            _ => Flavour::Redis,
        }
    }

    fn version(&self) -> Result<Version, InfoError> {
        let malformed = InfoError::Malformed { field: "redis_version" };
        let mut parts = self.text("redis_version")?.split('.');
        let mut part = || -> Option<u16> {
            let digits = parts.next()?;
            let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
            digits[..end].parse().ok()
        };
        match (part(), part(), part()) {
            (Some(major), Some(minor), patch) => {
                Ok(Version { major, minor, patch: patch.unwrap_or(0) })
            }
            _ => Err(malformed),
        }
    }

    fn role(&self) -> Result<Role, InfoError> {
        match self.text("role")? {
            "master" => Ok(Role::Master),
            "slave" | "replica" => Ok(Role::Replica(ReplicaLink {
                master_host: self.text("master_host")?.to_owned(),
                master_port: self.number("master_port")?,
                link_up: self.text("master_link_status")? == "up",
                link_down_since_s: self
                    .optional_number::<i64>("master_link_down_since_seconds")?
                    .and_then(unsigned),
                last_io_s: self
                    .optional_number::<i64>("master_last_io_seconds_ago")?
                    .and_then(unsigned),
                syncing: self.flag("master_sync_in_progress")?,
                sync_last_io_s: self
                    .optional_number::<i64>("master_sync_last_io_seconds_ago")?
                    .and_then(unsigned),
                read_only: self.flag("slave_read_only")?,
            })),
            _ => Err(InfoError::Malformed { field: "role" }),
        }
    }

    fn replicas(&self) -> Result<Vec<ReplicaLine>, InfoError> {
        self.0
            .iter()
            .filter(|(key, _)| {
                key.strip_prefix("slave").is_some_and(|rest| {
                    !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit())
                })
            })
            .map(|(_, line)| replica_line(line).ok_or(InfoError::Malformed { field: "slaveN" }))
            .collect()
    }

    fn backlog_from(&self) -> Result<Option<NonZeroU64>, InfoError> {
        let active = self.flag("repl_backlog_active")?;
        let first = self.number("repl_backlog_first_byte_offset")?;
        Ok(NonZeroU64::new(first).filter(|_| active))
    }

    fn keys(&self) -> Result<u64, InfoError> {
        let malformed = InfoError::Malformed { field: "dbN" };
        let mut sum = 0_u64;
        for (key, line) in &self.0 {
            let is_database = key
                .strip_prefix("db")
                .is_some_and(|n| !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit()));
            if !is_database {
                continue;
            }
            let keys = comma_fields(line).get("keys").and_then(|keys| keys.parse::<u64>().ok());
            sum = sum.saturating_add(keys.ok_or_else(|| malformed.clone())?);
        }
        Ok(sum)
    }

    fn persistence(&self) -> Result<Persistence, InfoError> {
        Ok(Persistence {
            last_bgsave_ok: self.text("rdb_last_bgsave_status")? == "ok",
            last_aof_write_ok: self.text("aof_last_write_status")? == "ok",
            aof_enabled: self.flag("aof_enabled")?,
            bgsave_in_progress: self.flag("rdb_bgsave_in_progress")?,
            last_save_unix_s: self.number("rdb_last_save_time")?,
        })
    }
}

fn comma_fields(line: &str) -> BTreeMap<&str, &str> {
    line.split(',').filter_map(|field| field.split_once('=')).collect()
}

fn replica_line(line: &str) -> Option<ReplicaLine> {
    let fields = comma_fields(line);
    Some(ReplicaLine {
        ip: (*fields.get("ip")?).to_owned(),
        port: fields.get("port")?.parse().ok()?,
        online: *fields.get("state")? == "online",
        offset: fields.get("offset")?.parse().ok()?,
        // -1 while the replica has not acknowledged anything yet.
        lag_s: fields.get("lag")?.parse::<i64>().ok().and_then(unsigned).unwrap_or(0),
    })
}

/// The fields of `INFO replication` alone, for a poll in a tight loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicationView {
    /// Role.
    pub role: Role,
    /// As in [`Observation`].
    pub replication_id: String,
    /// As in [`Observation`].
    pub offset: u64,
    /// As in [`Observation`].
    pub replicas: Vec<ReplicaLine>,
}

impl ReplicationView {
    /// Reads `INFO replication`.
    ///
    /// # Errors
    /// [`InfoError`] names the field.
    pub fn parse(info: &str) -> Result<Self, InfoError> {
        let fields = Fields::read(info);
        let role = fields.role()?;
        let offset_field = match role {
            Role::Master => "master_repl_offset",
            Role::Replica(_) => "slave_repl_offset",
        };
        Ok(Self {
            replication_id: fields.text("master_replid")?.to_owned(),
            offset: unsigned(fields.number(offset_field)?).unwrap_or(0),
            replicas: fields.replicas()?,
            role,
        })
    }
}

/// Identity of a Redis process, from `INFO server`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerIdentity {
    /// `run_id`.
    pub run_id: String,
    /// `process_id`.
    pub process_id: u32,
    /// `redis_version`.
    pub version: Version,
}

impl ServerIdentity {
    /// Reads `INFO server`.
    ///
    /// # Errors
    /// [`InfoError`] names the field.
    pub fn parse(info: &str) -> Result<Self, InfoError> {
        let fields = Fields::read(info);
        Ok(Self {
            run_id: fields.text("run_id")?.to_owned(),
            process_id: fields.number("process_id")?,
            version: fields.version()?,
        })
    }
}

#[cfg(test)]
#[path = "observation_tests.rs"]
mod tests;
