//! Putting the supervisor together, and taking it apart in order.
//!
//! Order of the start: host lock (one process), log, kernel lock read back (L7), peers asked who we are, core, executors,
//! servers, driver. Order of the stop: see [`crate::stop`]. Panics abort: the kernel's lease then fences the host.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use redkeep_agent::{
    quarantine::{Settings, Store},
    redis::Secret,
};
use redkeep_core::{Boot, Core, Epoch, GroupId, spec::NodeSpec};
use redkeep_wal::{Identity, OpenError, State, Wal};
use tokio::{net::TcpListener, runtime::Handle, sync::watch};

use crate::{
    admin::AdminServer,
    alarm::Alarm,
    clock::Clocks,
    config::{Config, Transport},
    driver::{Driver, Hands},
    executor::{
        disk::DiskQueue,
        kernel::KernelQueue,
        lock::Lock,
        redis::{Access, Quarantine},
    },
    front::Front,
    host_lock::HostLock,
    inbox::inbox,
    log,
    peer::{
        Links, Local,
        identity::{self, Directory, KnownPeers},
        server::PeerEndpoint,
    },
    sd_notify::ServiceManager,
    stop,
    tls::TlsFiles,
    watching,
};

/// How long a supervisor that was killed may take to be gone.
const PREDECESSOR_ENDS: Duration = Duration::from_secs(1);
/// Stays free on the disk of the quarantine, which by default is the log's: without room the log ends the supervisor, and keeps it
/// from starting. The log takes some MiB and grows while a file is copied piece by piece; the rest is for whoever else writes there.
const LEAVE_FREE: u64 = 64 << 20;

/// Run until told to stop.
///
/// # Errors
/// Whatever keeps the supervisor from starting, with the step it was in.
pub(crate) fn run(config: Config) -> anyhow::Result<()> {
    log::init(config.log_format).context("the log thread cannot be started")?;
    std::panic::set_hook(Box::new(|info| {
        eprintln!("redkeepd: {info}");
        std::process::abort();
    }));
    let _host = HostLock::take(&config.spec.name, PREDECESSOR_ENDS)?;
    let identity = Identity { cluster: config.spec.name.clone(), node: config.node.clone() };
    let (wal, state) = open_log(&config.data_dir, &identity)?;
    let known = Arc::new(
        KnownPeers::open(&config.data_dir).context("the list of known peers cannot be read")?,
    );
    let start = Start { config, wal, state, known };
    start.go(&Threads::start().context("a thread cannot be started")?)
}

/// Runtimes of one thread each. Between more threads every message would wake one of them for nothing: at rest, that is
/// most of what a supervisor costs.
struct Threads {
    /// The core, peers and Redis.
    driver: Handle,
    /// Whatever operators ask, TLS included: it delays no lease.
    operators: Handle,
}

impl Threads {
    fn start() -> io::Result<Self> {
        Ok(Self { driver: runtime("driver")?, operators: runtime("operators")? })
    }
}

fn runtime(name: &str) -> io::Result<Handle> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let serve = move || runtime.block_on(std::future::pending::<()>());
    std::thread::Builder::new().name(name.into()).spawn(serve)?;
    Ok(handle)
}

/// The predecessor may hold the file for a moment longer than its socket.
fn open_log(directory: &Path, identity: &Identity) -> Result<(Wal, State), OpenError> {
    let until = Instant::now() + PREDECESSOR_ENDS;
    loop {
        match Wal::open(directory, identity) {
            Err(OpenError::InUse { .. }) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(2));
            }
            opened => return opened,
        }
    }
}

struct Start {
    config: Config,
    wal: Wal,
    state: State,
    known: Arc<KnownPeers>,
}

impl Start {
    fn go(mut self, threads: &Threads) -> anyhow::Result<()> {
        let runtime = &threads.driver;
        let local = self.local()?;
        let (inbox, outlet) = inbox();
        let (stopping, stopped) = watch::channel(false);
        let nodes = watch::Sender::new(self.config.spec.nodes.clone());
        let listener = self.listen(runtime, |n| n.peer)?;
        let endpoint = PeerEndpoint::new(
            local.clone(),
            nodes.subscribe(),
            inbox.clone(),
            Arc::clone(&self.known),
        );
        let peers = runtime.spawn(endpoint.serve(listener));
        self.introduce(runtime, &local)?;
        let (mut lock, at_start) = Lock::open(&self.config.spec, self.config.node_id)
            .context("the kernel lock cannot be taken")?;
        let kernel =
            KernelQueue::run(inbox.clone()).context("the kernel thread cannot be started")?;
        let _watching = watching::start(&mut lock, &kernel, &inbox)?;
        let operators = self.listen(&threads.operators, |n| n.admin)?;
        let mut clocks = Clocks::default();
        let mut core = self.core(at_start, &mut clocks)?;
        let quarantine = Arc::new(self.quarantine());
        let kept = Arc::clone(&quarantine.store);
        let front = Arc::new(Front::new(inbox.clone(), core.status(clocks.now()), kept));
        let admin = AdminServer::new(Arc::clone(&front), &self.config.node, local.tls.clone());
        let mut until = stopped;
        let admin = threads.operators.spawn(admin.serve(operators, async move {
            // An error means that nobody can say stop any more, which is the same.
            let _ = until.wait_for(|stop| *stop).await;
        }));
        let hands = Hands {
            links: Links::new(local.clone(), runtime.clone(), inbox.clone()),
            disk: DiskQueue::run(self.wal, inbox.clone())
                .context("the disk thread cannot be started")?,
            lock,
            kernel,
            runtime: runtime.clone(),
            inbox: inbox.clone(),
            nodes,
            access: access(&self.config)?,
            quarantine,
        };
        let service = ServiceManager::from_env();
        service.ready();
        service.status("running");
        let driver =
            Driver::new((self.config.node_id, core, clocks), hands, Arc::clone(&front), service);
        let alarm = runtime.block_on(async { Alarm::new() }).context("a timer cannot be made")?;
        let driver = runtime.spawn(driver.run(outlet, alarm));
        tracing::info!(node = %self.config.node, cluster = %self.config.spec.name, incarnation = self.state.incarnation, "running");
        let operators = &threads.operators;
        operators.block_on(stop::wait_and_hand_over(&self.config, local.tls.as_deref(), &front));
        // Operators first, while the lease is still renewed; from the driver's end on the next life has one lease's time.
        stopping.send_replace(true);
        operators.block_on(stop::end_operators(admin));
        inbox.stop();
        let Ok(disk) = runtime.block_on(driver) else { bail!("the driver ended by a panic") };
        disk.close();
        peers.abort();
        tracing::info!("stopped");
        Ok(())
    }

    fn local(&self) -> anyhow::Result<Local> {
        let tls = match &self.config.transport {
            Transport::Insecure => None,
            Transport::Tls { ca, cert, key } => Some(Arc::new(
                TlsFiles::read(ca, cert, key).context("the TLS files cannot be read")?,
            )),
        };
        let spec = &self.config.spec;
        let (cluster, node) = (spec.name.clone(), self.config.node_id);
        let (lease_ttl, receipts) = (spec.timing.lease_ttl, Arc::default());
        Ok(Local { cluster, node, tls, lease_ttl, receipts })
    }

    fn quarantine(&self) -> Quarantine {
        let config = &self.config.quarantine;
        let id = self.state.dir_id.to_be_bytes();
        let settings = Settings {
            directory: config.dir.clone(),
            max_files: usize::try_from(config.max_files).unwrap_or(usize::MAX),
            max_bytes: config.max_bytes,
            leave_free: LEAVE_FREE,
            log: u32::from_be_bytes([id[0], id[1], id[2], id[3]]),
        };
        let timeout = Duration::from_nanos(config.timeout.0);
        Quarantine { store: Arc::new(Store::new(settings)), timeout }
    }

    fn listen(
        &self,
        runtime: &Handle,
        address: fn(&NodeSpec) -> SocketAddr,
    ) -> anyhow::Result<TcpListener> {
        let node = self
            .config
            .spec
            .node(self.config.node_id)
            .context("this node is not in the configuration")?;
        let address = address(node);
        runtime
            .block_on(TcpListener::bind(address))
            .with_context(|| format!("{address} cannot be bound"))
    }

    /// A fresh directory is used only once peers agree that it is not a lost one's successor.
    fn introduce(&mut self, runtime: &Handle, local: &Local) -> anyhow::Result<()> {
        let directory = Directory {
            id: self.state.dir_id.to_be_bytes(),
            fresh: self.state.fresh,
            join: self.config.join,
        };
        let nodes = &self.config.spec.nodes;
        if self.state.fresh {
            ServiceManager::from_env()
                .status("new data directory: waiting for a majority of peers");
        }
        runtime.block_on(identity::introduce(local, nodes, directory))?;
        if self.state.fresh {
            self.wal.mark_bootstrapped().context("the data directory cannot be written")?;
        }
        Ok(())
    }

    fn core(
        &mut self,
        lock: redkeep_core::input::LockAtStart,
        clocks: &mut Clocks,
    ) -> anyhow::Result<Core> {
        let burned = self.state.burned.iter().map(|(g, e)| (GroupId::new(g), Epoch(*e))).collect();
        let boot = Boot {
            node: self.config.node_id,
            initial_spec: self.config.spec.clone(),
            recovered: std::mem::take(&mut self.state.recovered),
            burned,
            join: self.config.join,
            incarnation: self.state.incarnation,
            lock,
            seed: seed().context("no randomness")?,
            mutations: Default::default(),
        };
        Core::new(boot, clocks.now()).context("the recovered state or the timings cannot be used")
    }
}

fn seed() -> io::Result<u64> {
    use std::io::Read as _;
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

/// Passwords are read here, once; only groups of this host need theirs.
fn access(config: &Config) -> anyhow::Result<BTreeMap<GroupId, Access>> {
    let mut all = BTreeMap::new();
    for group in config.local_groups() {
        let Some(access) = config.groups.get(&group.id) else { continue };
        let password = match &access.password_file {
            None => None,
            Some(path) => {
                let file = Secret::read(path)?;
                if let Some(mode) = file.world_readable_mode {
                    let mode = format!("{mode:o}");
                    tracing::warn!(path = %path.display(), mode, "everybody on this host can read the password file");
                }
                Some(file.secret)
            }
        };
        all.insert(group.id.clone(), Access { group: access.clone(), password });
    }
    Ok(all)
}
