//! What a real Redis says, byte for byte, where there is one; and the recordings that the agent's tests keep.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use redkeep_agent::redis::fuzzing::OWN_NAME;

use super::{Seeds, tagged};

const LIMIT: Duration = Duration::from_secs(10);

/// A Redis of this test's own on a unix socket; killed with it.
struct Redis {
    process: Child,
    dir: PathBuf,
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Redis {
    /// None where no `redis-server` is installed.
    fn start(name: &str, options: &[&str]) -> Option<Self> {
        let dir = std::env::temp_dir().join(format!("redkeep-fuzz-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--unixsocket"])
            .arg(dir.join("s"))
            .args(options)
            .current_dir(&dir)
            .stdout(Stdio::null())
            .spawn()
            .ok()?;
        Some(Self { process, dir })
    }

    fn connect(&self) -> UnixStream {
        let began = Instant::now();
        loop {
            match UnixStream::connect(self.dir.join("s")) {
                Ok(stream) => return stream,
                Err(_) if began.elapsed() < LIMIT => std::thread::yield_now(),
                Err(error) => panic!("redis-server does not listen: {error}"),
            }
        }
    }
}

/// One command and its whole reply.
fn ask(stream: &mut UnixStream, command: &str) -> Vec<u8> {
    // PONG marks the end of the reply before it.
    stream.write_all(format!("{command}\r\nPING the-end\r\n").as_bytes()).unwrap();
    let end = b"$7\r\nthe-end\r\n";
    let mut reply = Vec::new();
    let mut buffer = [0; 4096];
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    while !reply.ends_with(end) {
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "{command}: the connection ended");
        reply.extend(&buffer[..read]);
        if reply.starts_with(b"-NOAUTH") {
            return reply[..reply.windows(2).position(|w| w == b"\r\n").unwrap() + 2].to_vec();
        }
    }
    reply.truncate(reply.len() - end.len());
    reply
}

const COMMANDS: [(&str, &str); 12] = [
    ("info-server", "INFO server"),
    ("info-replication", "INFO replication"),
    ("info-persistence", "INFO persistence"),
    ("info-keyspace", "INFO keyspace"),
    ("info-all", "INFO"),
    ("role", "ROLE"),
    ("client-list", "CLIENT LIST"),
    ("config-save", "CONFIG GET save"),
    ("config-minimum", "CONFIG GET min-replicas-to-write"),
    ("unknown-command", "NOSUCHCOMMAND a"),
    ("wrong-arguments", "CONFIG GET"),
    ("ok", "CONFIG SET min-replicas-to-write 1"),
];

fn record(redis: &Redis, role: &str, seeds: &mut Seeds) {
    let mut stream = redis.connect();
    ask(&mut stream, &format!("CLIENT SETNAME {OWN_NAME}"));
    ask(&mut stream, "SET key value");
    for (name, command) in COMMANDS {
        let reply = ask(&mut stream, command);
        if name == "client-list" {
            let text = reply.splitn(2, |byte| *byte == b'\n').nth(1).unwrap();
            seeds.push((format!("{role}-clients"), tagged(2, text)));
        }
        seeds.push((format!("{role}-{name}"), tagged(0, &reply)));
    }
}

pub(super) fn redis_reply() -> Seeds {
    let mut seeds = Seeds::new();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/src/redis/testdata");
    for entry in fs::read_dir(data).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        seeds.push((name, tagged(1, &fs::read(&path).unwrap())));
    }
    if let Some(master) = Redis::start("master", &[]) {
        record(&master, "master", &mut seeds);
        // Nobody is there to be followed: a replica whose link is down.
        let replica = Redis::start("replica", &["--replicaof", "127.0.0.1 1"]).expect("as before");
        record(&replica, "replica", &mut seeds);
        let locked = Redis::start("locked", &["--requirepass", "p"]).expect("as before");
        let refused = ask(&mut locked.connect(), "INFO");
        seeds.push(("noauth".to_owned(), tagged(0, &refused)));
        seeds.push(("noauth-greeting".to_owned(), tagged(3, refused.trim_ascii_end())));
        seeds.push(("greeting".to_owned(), tagged(3, b"+PONG")));
    }
    seeds
}
