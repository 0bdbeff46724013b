//! What is done with Redis beside the control task: comparing two data sets, and keeping one aside before it is overwritten.
//!
//! Both take connections of their own and change nothing, so nothing waits for them: no fence, no promotion. Files are handled on
//! blocking threads. Each order is answered once, in bounded time, also when a disk hangs. At most one data set of a group is being
//! kept; the next change of role ends that.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use redkeep_agent::{
    quarantine::{Entry, Store},
    redis::{
        Observation, Probe, RedisAddress, RedisEndpoint, RedisFailure, Role, Snapshot,
        SnapshotError,
    },
};
use redkeep_core::{
    ActionId, ActionOutcome, Epoch, RunId,
    effect::{ActionFailure, Kept},
    lineage::{Compared, Lineage},
    observe::PreviousHistory,
};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::{
    Shared,
    control::{Acted, failure},
};

/// A disk that has not answered by then does not count any more.
const GRACE: Duration = Duration::from_secs(1);

/// Where data sets are kept, and how long that may take.
#[derive(Debug)]
pub(crate) struct Quarantine {
    pub(crate) store: Arc<Store>,
    pub(crate) timeout: Duration,
}

/// Of one group.
pub(super) struct Aside {
    shared: Arc<Shared>,
    quarantine: Arc<Quarantine>,
    /// Ends what is being kept when it says so, or is gone.
    running: Option<watch::Sender<bool>>,
}

impl Aside {
    pub(super) fn new(shared: Arc<Shared>, quarantine: Arc<Quarantine>) -> Self {
        Self { shared, quarantine, running: None }
    }

    /// Redis is about to change its role: what is being kept is not needed, or not the same, any more.
    pub(super) fn end(&mut self) {
        self.running = None;
    }

    /// `master` is an endpoint of an ordinary client there.
    pub(super) fn compare(&self, id: ActionId, master: RedisEndpoint) {
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let compared = compare(shared.endpoint.clone(), master).await;
            shared.done(id, compared.unwrap_or_else(ActionOutcome::Failed));
        });
    }

    pub(super) fn keep(&mut self, id: ActionId, epoch: Epoch, gap: Option<u64>) {
        let (running, ended) = watch::channel(false);
        self.running = Some(running);
        let shared = Arc::clone(&self.shared);
        let keeper = Keeper {
            store: Arc::clone(&self.quarantine.store),
            endpoint: shared.endpoint.clone(),
            group: shared.group.to_string(),
            deadline: Instant::now() + self.quarantine.timeout,
            ended,
        };
        tokio::spawn(async move {
            let kept = keeper.keep(epoch.0, gap).await;
            shared.done(id, kept.unwrap_or_else(ActionOutcome::Failed));
        });
    }
}

async fn compare(own: RedisEndpoint, master: RedisEndpoint) -> Acted {
    let (own, other) = tokio::join!(look(own), look(master.clone()));
    let own = own.map_err(|error| {
        failure(is_passing(&error), format!("Redis says nothing of its data set: {error}"))
    })?;
    let other = other.map_err(|error| unreachable_master(&master, &error))?;
    if !matches!(other.role, Role::Master) {
        return Err(failure(true, format!("Redis at {} is no master", place(&master))));
    }
    Ok(ActionOutcome::Compared(Box::new(Compared {
        run_id: RunId::new(&own.run_id),
        own: lineage(&own),
        master: lineage(&other),
        keys: own.keys,
        append_only: own.persistence.aof_enabled,
    })))
}

fn unreachable_master(master: &RedisEndpoint, error: &RedisFailure) -> ActionFailure {
    failure(is_passing(error), format!("the master's Redis at {}: {error}", place(master)))
}

fn place(endpoint: &RedisEndpoint) -> String {
    match &endpoint.address {
        RedisAddress::Tcp(at) => at.to_string(),
        RedisAddress::Unix(path) => path.display().to_string(),
    }
}

/// `INFO`, also of a Redis that refuses writes for its disk.
async fn look(endpoint: RedisEndpoint) -> Result<Observation, RedisFailure> {
    let mut probe = Probe::new(endpoint);
    match probe.observe().await {
        Err(RedisFailure::Misconf) => {
            probe.last_observation().cloned().ok_or(RedisFailure::Misconf)
        }
        other => other,
    }
}

/// It may be otherwise at the next attempt, without anybody's doing.
fn is_passing(failure: &RedisFailure) -> bool {
    match failure {
        RedisFailure::Timeout { .. }
        | RedisFailure::Refused
        | RedisFailure::Unreachable { .. }
        | RedisFailure::Socket { .. }
        | RedisFailure::Closed
        | RedisFailure::Loading { .. }
        | RedisFailure::Busy
        | RedisFailure::MaxClients => true,
        RedisFailure::Misconf
        | RedisFailure::AuthRejected
        | RedisFailure::NoPermission { .. }
        | RedisFailure::ProtectedMode
        | RedisFailure::UnknownCommand { .. }
        | RedisFailure::Rejected { .. }
        | RedisFailure::Protocol { .. } => false,
    }
}

fn lineage(seen: &Observation) -> Lineage {
    let previous = seen.replication_id2.clone().zip(seen.second_repl_offset);
    Lineage {
        replication_id: seen.replication_id.clone(),
        previous: previous
            .map(|(replication_id, until_offset)| PreviousHistory { replication_id, until_offset }),
        offset: seen.offset,
    }
}

/// One data set on its way.
struct Keeper {
    store: Arc<Store>,
    endpoint: RedisEndpoint,
    group: String,
    deadline: Instant,
    ended: watch::Receiver<bool>,
}

impl Keeper {
    async fn keep(self, epoch: u64, gap: Option<u64>) -> Acted {
        if self.store.is_off() {
            return Err(failure(
                false,
                "quarantine is switched off on this node (max_bytes = \"0\")",
            ));
        }
        let (store, group) = (Arc::clone(&self.store), self.group.clone());
        // An earlier life of this supervisor may have got so far.
        if let Some(entry) = self.blocking("look for it", move || store.find(&group, epoch)).await?
        {
            return Ok(kept(&entry));
        }
        let saved = self.snapshot().await?;
        let (store, group) = (Arc::clone(&self.store), self.group.clone());
        let (ended, deadline) = (self.ended.clone(), self.deadline);
        let go_on = move || !is_over(&ended) && Instant::now() < deadline;
        let keep = move || store.keep(Path::new(&saved), (&group, epoch, gap), &go_on);
        Ok(kept(&self.blocking("keep it", keep).await?))
    }

    async fn snapshot(&self) -> Result<PathBuf, ActionFailure> {
        let mut ended = self.ended.clone();
        let take = async {
            let snapshot = Snapshot::open(self.endpoint.clone()).await?;
            snapshot.take().await
        };
        tokio::select! {
            biased;
            // Gone is over, too.
            _ = ended.wait_for(|over| *over) => Err(failure(false, "a change of role came first")),
            taken = timeout_at(self.deadline, take) => match taken {
                Ok(Ok(path)) => Ok(path),
                Ok(Err(error)) => Err(failure(may_succeed(&error), crate::executor::lock::chain(&error))),
                Err(_elapsed) => Err(failure(false, "BGSAVE did not end in time (quarantine.timeout)")),
            },
        }
    }

    /// Files on a thread where they may block; an answer in any case.
    async fn blocking<T, E>(
        &self,
        what: &'static str,
        work: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<T, ActionFailure>
    where
        T: Send + 'static,
        E: std::error::Error + Send + 'static,
    {
        let work = tokio::task::spawn_blocking(work);
        match timeout_at(self.deadline + GRACE, work).await {
            Ok(Ok(Ok(done))) => Ok(done),
            Ok(Ok(Err(error))) => Err(failure(false, crate::executor::lock::chain(&error))),
            Ok(Err(_ended)) => Err(failure(false, "the runtime ends")),
            Err(_elapsed) => Err(failure(false, format!("a disk does not answer: {what}"))),
        }
    }
}

fn is_over(ended: &watch::Receiver<bool>) -> bool {
    *ended.borrow() || ended.has_changed().is_err()
}

fn may_succeed(error: &SnapshotError) -> bool {
    match error {
        SnapshotError::Connect(source) | SnapshotError::Redis { source, .. } => is_passing(source),
        SnapshotError::Failed => true,
        SnapshotError::NotVisible { .. } | SnapshotError::File { .. } => false,
    }
}

fn kept(entry: &Entry) -> ActionOutcome {
    ActionOutcome::Kept(Kept { path: entry.path.display().to_string(), size: entry.size })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use redkeep_agent::quarantine::Settings;
    use redkeep_core::{GroupId, Input};
    use tokio::sync::{Notify, mpsc};

    use super::{
        super::{Settling, Watched, own_pause::OwnPause},
        *,
    };
    use crate::inbox::{Outlet, Post, inbox};

    const LONG: Duration = Duration::from_secs(60);

    /// A Redis that takes connections and never answers, and a directory; removed when dropped.
    struct Bench {
        _hung: TcpListener,
        directory: PathBuf,
        aside: Aside,
        outlet: Outlet,
    }

    impl Drop for Bench {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }

    impl Bench {
        fn new(test: &str, max_bytes: u64, timeout: Duration) -> Self {
            let name = format!("redkeep-aside-{test}-{}", std::process::id());
            let directory = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&directory).unwrap();
            let hung = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut endpoint = RedisEndpoint::new(RedisAddress::Tcp(hung.local_addr().unwrap()));
            endpoint.connect_timeout = LONG;
            let (inbox, outlet) = inbox();
            let (deaths, _) = mpsc::unbounded_channel();
            let shared = Shared {
                group: GroupId::new("pair"),
                endpoint,
                inbox,
                probe_now: Notify::new(),
                settling: Settling::new(),
                deaths,
                watched: Watched::default(),
                own_pause: OwnPause::default(),
            };
            let store = Store::new(Settings {
                directory: directory.clone(),
                max_files: 4,
                max_bytes,
                leave_free: 0,
                log: 7,
            });
            let quarantine = Quarantine { store: Arc::new(store), timeout };
            let aside = Aside::new(Arc::new(shared), Arc::new(quarantine));
            Self { _hung: hung, directory, aside, outlet }
        }

        async fn answer(&mut self) -> ActionOutcome {
            let post = tokio::time::timeout(LONG, self.outlet.take()).await.unwrap();
            let Post::Input(Input::ActionDone { id: ActionId(5), outcome, .. }) = post else {
                panic!("{post:?}")
            };
            outcome
        }

        async fn reason(&mut self) -> String {
            let outcome = self.answer().await;
            let ActionOutcome::Failed(ActionFailure { retry: false, text }) = outcome else {
                panic!("{outcome:?}")
            };
            text
        }
    }

    #[tokio::test]
    async fn a_change_of_role_ends_what_is_being_kept() {
        let mut b = Bench::new("role", 1000, LONG);
        b.aside.keep(ActionId(5), Epoch(2), None);
        b.aside.end();
        assert_eq!(b.reason().await, "a change of role came first");
    }

    #[tokio::test]
    async fn a_snapshot_that_does_not_end_is_given_up_in_time() {
        let mut b = Bench::new("time", 1000, Duration::from_millis(20));
        b.aside.keep(ActionId(5), Epoch(2), None);
        assert!(b.reason().await.contains("in time"));
    }

    #[tokio::test]
    async fn where_quarantine_is_off_redis_is_not_asked() {
        let mut b = Bench::new("off", 0, LONG);
        b.aside.keep(ActionId(5), Epoch(2), Some(9));
        assert!(b.reason().await.contains("switched off"));
    }

    #[tokio::test]
    async fn what_an_earlier_life_kept_of_this_epoch_is_not_kept_again() {
        let mut b = Bench::new("again", 1000, LONG);
        let saved = b.directory.join("dump.rdb");
        std::fs::write(&saved, b"data").unwrap();
        let entry = b.aside.quarantine.store.keep(&saved, ("pair", 2, Some(9)), &|| true).unwrap();
        b.aside.keep(ActionId(5), Epoch(2), Some(9));
        let ActionOutcome::Kept(kept) = b.answer().await else { panic!("it was kept") };
        assert_eq!((kept.path, kept.size), (entry.path.display().to_string(), 4));
    }
}
