//! The configuration file: one TOML file, the same on all hosts but for `node`.
//!
//! Two stages: [`raw`] takes keys out of tables, [`validate`] applies the rules and yields a [`Config`] without any
//! "absent means default" left in it. All problems are reported at once, and nothing is bound, opened or written
//! before there are none. `[[node]]`, `[[group]]` and `[cluster]` are the initial spec: once the cluster has one,
//! the replicated spec rules. Deliberately absent: environment overrides, and warnings that let a bad file run.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use redkeep_core::{GroupId, NodeId, Span, spec::ClusterSpec};

mod raw;
mod show;
mod unit;
mod validate;

pub(crate) use raw::Problem;
pub(crate) use show::{consequences, effective};
pub(crate) use validate::{is_name, is_place};

/// A configuration that obeys every rule.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Name of this host's node.
    pub(crate) node: String,
    pub(crate) node_id: NodeId,
    pub(crate) data_dir: PathBuf,
    /// A fresh data directory takes its membership from the running cluster.
    pub(crate) join: bool,
    pub(crate) transport: Transport,
    pub(crate) log_format: LogFormat,
    pub(crate) on_stop: OnStop,
    pub(crate) quarantine: Quarantine,
    /// What the first leader writes into the log.
    pub(crate) spec: ClusterSpec,
    /// How this host talks to the Redis of each group; not replicated.
    pub(crate) groups: BTreeMap<GroupId, GroupAccess>,
}

/// How supervisors and operators are spoken to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Transport {
    /// Plain text; the operator wrote `insecure = true`.
    Insecure,
    Tls {
        ca: PathBuf,
        cert: PathBuf,
        key: PathBuf,
    },
}

/// How log lines are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// What an orderly stop does to the masters of this host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OnStop {
    /// Leave VIP and lock to the kernel: a restart within the lease disturbs nobody.
    Keep,
    /// Hand every master of this host over first.
    Switchover,
}

/// What of a returning old master is kept on this host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Quarantine {
    pub(crate) dir: PathBuf,
    /// Files of one group.
    pub(crate) max_files: u32,
    /// All files together; bytes, 0 = nothing is kept.
    pub(crate) max_bytes: u64,
    /// How long the old master may stay without a role for it.
    pub(crate) timeout: Span,
}

/// Access to the local Redis of one group.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct GroupAccess {
    pub(crate) username: Option<String>,
    pub(crate) password_file: Option<PathBuf>,
    /// Instead of TCP over loopback.
    pub(crate) unix_socket: Option<PathBuf>,
    /// `rename-command` of redis.conf: name as known to the world, name in this Redis.
    pub(crate) rename_commands: BTreeMap<String, String>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("cannot read {path}", path = path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} is not TOML", path = path.display())]
    Syntax { path: PathBuf, source: Box<toml::de::Error> },
    #[error("{path}: {count} problem(s)\n\n{text}", path = path.display(), count = problems.len(), text = list(problems))]
    Invalid { path: PathBuf, problems: Vec<Problem> },
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n\n")
}

impl Config {
    /// Read and check `path`, the files it names included.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with every problem there is.
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let table = raw::Document::parse(text).map_err(|source| ConfigError::Syntax {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        validate::validate(table)
            .map_err(|problems| ConfigError::Invalid { path: path.to_owned(), problems })
    }

    /// Groups that have a Redis on this host.
    pub(crate) fn local_groups(&self) -> impl Iterator<Item = &redkeep_core::spec::GroupSpec> {
        self.spec.groups.iter().filter(|g| g.is_member(self.node_id))
    }
}

#[cfg(test)]
mod tests;
