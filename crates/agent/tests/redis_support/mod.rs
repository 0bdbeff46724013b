//! A real redis-server on a loopback port of its own, killed when dropped.
#![allow(clippy::unwrap_used)]
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use redis::Value;
use redkeep_agent::process::Listeners;
use redkeep_agent::redis::{RedisAddress, RedisEndpoint, Secret};

static NEXT: AtomicU32 = AtomicU32::new(0);

pub struct Server {
    pub port: u16,
    pub directory: PathBuf,
    child: Child,
}

/// `redis-server` of PATH, or the one that the environment names.
fn program() -> std::ffi::OsString {
    std::env::var_os("LAB_REDIS_SERVER").unwrap_or_else(|| "redis-server".into())
}

/// From 7.0 on DEBUG is refused unless asked for; before, that option is unknown.
fn with_debug_command() -> &'static [&'static str] {
    static MAJOR: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    let major = MAJOR.get_or_init(|| {
        let output = Command::new(program()).arg("--version").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (_, version) = text.split_once("v=").unwrap();
        version.split('.').next().unwrap().parse().unwrap()
    });
    if *major >= 7 { &["--enable-debug-command", "yes"] } else { &[] }
}

impl Server {
    /// Starts and waits until it answers anything at all.
    pub fn start(arguments: &[&str]) -> Self {
        let directory = std::env::temp_dir().join(format!(
            "redkeep-redis-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        std::fs::create_dir_all(&directory).unwrap();
        Self::start_in(&directory, arguments)
    }

    pub fn start_in(directory: &Path, arguments: &[&str]) -> Self {
        let mut found = None;
        // Another test may take the free port first: then this redis-server ends, and the next port is tried.
        wait_until("redis-server answers", || {
            found = Self::try_start(directory, arguments);
            found.is_some()
        });
        found.unwrap()
    }

    fn try_start(directory: &Path, arguments: &[&str]) -> Option<Self> {
        let port = free_port();
        let child = Command::new(program())
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .arg("--dir")
            .arg(directory)
            .args(["--repl-diskless-sync-delay", "0"])
            .args(with_debug_command())
            .args(["--save", ""])
            .args(arguments)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Self { port, directory: directory.to_path_buf(), child };
        let mut ended = false;
        wait_until("redis-server answers or ends", || {
            ended = server.child.try_wait().unwrap().is_some();
            let listens = || Listeners::of(server.pid()).is_ok_and(|found| found.has_port(port));
            ended || (listens() && server.raw("PING").is_some())
        });
        if ended {
            // Not this directory: the next attempt needs it.
            server.directory = PathBuf::new();
            return None;
        }
        Some(server)
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    pub fn endpoint(&self) -> RedisEndpoint {
        endpoint(self.address())
    }

    pub fn endpoint_with_password(&self, password: &str) -> RedisEndpoint {
        RedisEndpoint { password: Some(Secret::new(password)), ..self.endpoint() }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// One inline command over a bare socket; the first line of the reply.
    pub fn raw(&self, line: &str) -> Option<String> {
        use std::io::{BufRead as _, Write as _};
        let mut stream = std::net::TcpStream::connect(self.address()).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        stream.write_all(format!("{line}\r\n").as_bytes()).ok()?;
        let mut reply = String::new();
        std::io::BufReader::new(stream).read_line(&mut reply).ok()?;
        (!reply.is_empty()).then(|| reply.trim_end().to_owned())
    }

    pub fn client(&self) -> redis::Connection {
        self.client_with("")
    }

    /// `credentials` as in a URL, with the `@`: `:password@`.
    pub fn client_with(&self, credentials: &str) -> redis::Connection {
        redis::Client::open(format!("redis://{credentials}127.0.0.1:{}/", self.port))
            .unwrap()
            .get_connection()
            .unwrap()
    }

    pub fn signal(&self, signal: i32) {
        signal_process(self.pid(), signal);
    }

    pub fn reap(&mut self) {
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

pub fn endpoint(address: SocketAddr) -> RedisEndpoint {
    // Generous: the tests share few cores with a build.
    RedisEndpoint {
        connect_timeout: Duration::from_secs(2),
        command_timeout: Duration::from_secs(2),
        ..RedisEndpoint::new(RedisAddress::Tcp(address))
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub fn signal_process(pid: u32, signal: i32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let signal = rustix::process::Signal::from_named_raw(signal).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Waits for a condition with a bound of 20 s.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(20), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn run(client: &mut redis::Connection, words: &[&str]) -> Value {
    let mut command = redis::cmd(words[0]);
    for word in &words[1..] {
        command.arg(*word);
    }
    command.query(client).unwrap()
}

pub fn info(client: &mut redis::Connection, section: &str, field: &str) -> String {
    let text: String = redis::cmd("INFO").arg(section).query(client).unwrap();
    text.lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
        .unwrap_or_default()
        .to_owned()
}

/// Middle and largest of some times, in microseconds, for the record.
pub fn spread_us(mut times: Vec<Duration>) -> (u128, u128) {
    times.sort_unstable();
    (times[times.len() / 2].as_micros(), times[times.len() - 1].as_micros())
}

pub fn remove(path: &Path) {
    std::fs::remove_dir_all(path).unwrap();
}
