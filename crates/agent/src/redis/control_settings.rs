//! Settings of a Redis at run time: read, set, and those that the supervisor has need of.

use std::time::Duration;

use tokio::time::Instant;

use super::control::Control;
use super::control_types::{ControlError, MasterAuth, MasterAuthChange, Outcome};
use super::failure::RedisFailure;
use super::observation::Version;
use super::probe::config_value;

/// First version that says "replica" in commands and settings.
const REPLICA_NAMES_SINCE: Version = Version { major: 5, minor: 0, patch: 0 };

impl Control {
    /// Sets `min-replicas-to-write`: a number above the replicas attached makes Redis refuse writes (`NOREPLICAS`).
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn set_min_replicas_to_write(
        &mut self,
        replicas: u32,
        within: Duration,
    ) -> Result<Outcome<()>, ControlError> {
        self.set_min_replicas(["min-replicas-to-write", "min-slaves-to-write"], replicas, within)
            .await
    }

    /// Sets `min-replicas-max-lag`, whole seconds: a replica that acknowledged nothing for longer does not count. With 0
    /// Redis asks for no replica at all.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn set_min_replicas_max_lag(
        &mut self,
        seconds: u32,
        within: Duration,
    ) -> Result<Outcome<()>, ControlError> {
        self.set_min_replicas(["min-replicas-max-lag", "min-slaves-max-lag"], seconds, within).await
    }

    /// One setting; `None` if this version does not have it.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn config_get(
        &mut self,
        name: &str,
        within: Duration,
    ) -> Result<Outcome<Option<String>>, ControlError> {
        self.config_get_by(name, Instant::now() + within).await
    }

    /// Sets one setting at run time; it is not written to the file.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn config_set(
        &mut self,
        name: &str,
        value: &str,
        within: Duration,
    ) -> Result<Outcome<()>, ControlError> {
        self.config_set_by(name, value, Instant::now() + within).await
    }

    /// `names`: since Redis 5, and before.
    async fn set_min_replicas(
        &mut self,
        names: [&'static str; 2],
        value: u32,
        within: Duration,
    ) -> Result<Outcome<()>, ControlError> {
        let deadline = Instant::now() + within;
        let Outcome::Done(server) = self.link.ready(deadline).await? else {
            return Ok(Outcome::Pending);
        };
        let [name, old_name] = names;
        let name = if server.version >= REPLICA_NAMES_SINCE { name } else { old_name };
        self.config_set_by(name, &value.to_string(), deadline).await
    }

    pub(super) async fn ensure_master_auth(
        &mut self,
        auth: Option<&MasterAuth>,
        deadline: Instant,
    ) -> Result<Outcome<MasterAuthChange>, ControlError> {
        let Some(auth) = auth else {
            return Ok(Outcome::Done(MasterAuthChange::Unchanged));
        };
        let username = auth.username.as_deref().unwrap_or("");
        let mut change = MasterAuthChange::Unchanged;
        for (name, wanted) in [("masteruser", username), ("masterauth", auth.password.expose())] {
            let set = match self.config_get_by(name, deadline).await {
                Ok(Outcome::Pending) => return Ok(Outcome::Pending),
                // Redis before 6 has no masteruser.
                Ok(Outcome::Done(None)) => continue,
                Ok(Outcome::Done(Some(value))) if value == wanted => continue,
                Ok(Outcome::Done(Some(_))) => self.config_set_by(name, wanted, deadline).await,
                Err(error) => Err(error),
            };
            match set {
                Ok(Outcome::Pending) => return Ok(Outcome::Pending),
                Ok(Outcome::Done(())) => change = MasterAuthChange::Set,
                Err(ControlError::Redis { source, .. }) if forbidden(&source) => {
                    return Ok(Outcome::Done(MasterAuthChange::NotPermitted(source)));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Outcome::Done(change))
    }

    async fn config_get_by(
        &mut self,
        name: &str,
        deadline: Instant,
    ) -> Result<Outcome<Option<String>>, ControlError> {
        let mut command = self.link.command("CONFIG");
        command.arg("GET").arg(name);
        Ok(self.one("CONFIG", false, command, deadline).await?.map(config_value))
    }

    async fn config_set_by(
        &mut self,
        name: &str,
        value: &str,
        deadline: Instant,
    ) -> Result<Outcome<()>, ControlError> {
        let mut command = self.link.command("CONFIG");
        command.arg("SET").arg(name).arg(value);
        Ok(self.one("CONFIG", true, command, deadline).await?.map(|_| ()))
    }
}

fn forbidden(failure: &RedisFailure) -> bool {
    matches!(failure, RedisFailure::NoPermission { .. } | RedisFailure::UnknownCommand { .. })
}
