//! What may be said on the command line.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use clap::{Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

const AFTER: &str = "\
Environment:
  REDKEEP_ENDPOINT   endpoints, separated by commas, where --endpoint is not given
  REDKEEP_CA, REDKEEP_CERT, REDKEEP_KEY, REDKEEP_SERVER_NAME   likewise

Exit codes: 0 done, 1 refused, 2 usage, 3 unreachable (nothing was done), 4 outcome unknown";

/// Operate a redkeep cluster.
#[derive(Debug, Parser)]
#[command(name = "redkeepctl", version, after_help = AFTER, max_term_width = 100)]
pub(crate) struct Args {
    /// A supervisor's admin address; repeatable, tried in order [default: 127.0.0.1:7601]
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub(crate) endpoint: Vec<String>,
    /// CA of the cluster (PEM); without it the connection is plain text
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Own certificate (PEM)
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,
    /// Key of the own certificate (PEM)
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Name in the supervisor's certificate [default: the endpoint's host]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) server_name: Option<String>,
    /// How the answer is written
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    /// Longest time for the whole command
    #[arg(long, global = true, value_name = "TIME", default_value = "30s")]
    pub(crate) timeout: Length,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// How the answer is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Table,
    /// For programs; stable
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Who is master of what, what is wrong, and what helps
    Status {
        /// Only this group
        group: Option<String>,
        /// The asked node's own view; do not ask the leader
        #[arg(long)]
        local: bool,
    },
    /// What was decided, the newest last
    History {
        /// Only this group
        group: Option<String>,
        /// At most so many lines; 0 = all that are kept
        #[arg(short = 'n', long, value_name = "LINES", default_value_t = 20)]
        limit: u32,
        /// From the asked node's own log; do not ask the leader
        #[arg(long)]
        local: bool,
    },
    /// What happens at the asked node, as it happens
    #[command(alias = "watch")]
    Events {
        /// Only this group
        group: Option<String>,
        /// At all nodes of the cluster
        #[arg(long)]
        all: bool,
    },
    /// Why a group does not move, and which rule excludes each candidate
    Explain {
        /// The group
        group: String,
        /// The asked node's own view; do not ask the leader
        #[arg(long)]
        local: bool,
    },
    /// Move the master as planned: nothing is lost, or nothing happens
    Switchover {
        /// The group
        group: String,
        #[command(flatten)]
        change: Change,
    },
    /// Name another master although the present one cannot hand over
    Failover {
        /// The group
        group: String,
        /// Take a node outside the eligible set: acknowledged writes may be lost. Only with --to
        #[arg(long)]
        allow_data_loss: bool,
        #[command(flatten)]
        change: Change,
    },
    /// No automatic failover for a while; leases go on
    Pause {
        /// Only this group; without it all
        group: Option<String>,
        /// How long: 1s to 7d
        #[arg(long = "for", value_name = "TIME")]
        length: Length,
    },
    /// End a pause
    Resume {
        /// Only this group's pause; without it the pause of all groups
        group: Option<String>,
    },
    /// The failures that there are were seen: go on in spite of cooldown and mass_failure_limit
    Acknowledge {
        /// Only this group's; without it those of all groups
        group: Option<String>,
        /// Only say what would happen
        #[arg(long)]
        dry_run: bool,
    },
    /// Raft leadership
    #[command(subcommand)]
    Leader(Leader),
    /// Supervisors of the cluster
    #[command(subcommand)]
    Node(Node),
    /// Nodes with a Redis of a group
    #[command(subcommand)]
    Member(Member),
    /// Data sets of old masters that were kept aside before they were overwritten
    #[command(subcommand)]
    Quarantine(Quarantine),
    /// Print a completion script
    Completions {
        /// The shell
        shell: Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Leader {
    /// Make another node the leader; no master moves
    Transfer {
        /// The node
        node: String,
        /// Wait until it leads
        #[arg(long)]
        wait: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Quarantine {
    /// Those of the asked node
    List {
        /// Only this group's
        group: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Node {
    /// Let a supervisor join; start it with `join = true` in its file
    Add {
        /// Its name; none that was ever in use
        node: String,
        /// Where it answers peers
        #[arg(long, value_name = "ADDRESS:PORT")]
        peer: String,
        /// Where it answers operators
        #[arg(long, value_name = "ADDRESS:PORT")]
        admin: String,
        /// Wait until it votes
        #[arg(long)]
        wait: bool,
        /// Only say what would happen
        #[arg(long)]
        dry_run: bool,
    },
    /// Take a supervisor out for good; its name cannot come back
    Remove {
        /// The node
        node: String,
        #[command(flatten)]
        consent: Consent,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Member {
    /// Make a node's Redis a replica of the group; what it holds is replaced
    Add {
        /// The group
        group: String,
        /// The node
        node: String,
        /// Higher is preferred among equals; 0 = never promoted without being named
        #[arg(long, default_value_t = 100)]
        priority: u32,
        #[command(flatten)]
        consent: Consent,
    },
    /// Take a node out of the group; it may not be the master
    Remove {
        /// The group
        group: String,
        /// The node
        node: String,
        #[command(flatten)]
        consent: Consent,
    },
}

/// Whether it is to be done, and whether to ask first.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Consent {
    /// Only say what would happen
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask; without a terminal nothing is asked anyway
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// What a change of the master has in common.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Change {
    /// The new master's node [default: the best candidate]
    #[arg(long, value_name = "NODE")]
    pub(crate) to: Option<String>,
    /// Wait until every other member follows the new master and may be promoted itself
    #[arg(long)]
    pub(crate) wait: bool,
    #[command(flatten)]
    pub(crate) consent: Consent,
}

/// A length of time with its unit: 300ms, 10s, 5m, 2h, 1d.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Length(pub(crate) Duration);

/// Why a text is no length of time.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("write a whole number and a unit: 300ms, 10s, 5m, 2h or 1d")]
pub(crate) struct LengthError;

impl FromStr for Length {
    type Err = LengthError;

    fn from_str(text: &str) -> Result<Self, LengthError> {
        let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or(LengthError)?;
        let (number, unit) = text.split_at(unit_at);
        let number: u64 = number.parse().map_err(|_| LengthError)?;
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(LengthError),
        };
        number.checked_mul(unit_ms).map(|ms| Self(Duration::from_millis(ms))).ok_or(LengthError)
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::CommandFactory as _;

    use super::{Args, Length, LengthError};

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn lengths_need_a_unit() {
        let ok = [
            ("300ms", 300),
            ("10s", 10_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("7d", 604_800_000),
        ];
        for (text, ms) in ok {
            assert_eq!(text.parse(), Ok(Length(Duration::from_millis(ms))));
        }
        for text in [
            "",
            "10",
            "s",
            "-1s",
            "1.5s",
            "1 s",
            "10x",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert_eq!(text.parse::<Length>(), Err(LengthError), "{text}");
        }
    }
}
