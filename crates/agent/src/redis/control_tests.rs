//! The way of Redis before 6.2, taken on the installed one: it pauses everybody by the same command.
#![allow(clippy::unwrap_used)]

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::redis::RedisAddress;

struct Server {
    address: SocketAddr,
    directory: PathBuf,
    child: Child,
}

impl Server {
    fn start() -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let directory = std::env::temp_dir().join(format!("redkeep-pause-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let child = Command::new("redis-server")
            .args(["--port", &address.port().to_string(), "--bind", "127.0.0.1", "--dir"])
            .arg(&directory)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { address, directory, child }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[tokio::test]
async fn whole_pause_gives_its_offset_and_holds_back_everything_until_it_ends() {
    let server = Server::start();
    let mut control = Control::new(RedisEndpoint::new(RedisAddress::Tcp(server.address)));
    let second = Duration::from_secs(1);
    let began = Instant::now();
    while control.ready(second).await.is_err() {
        assert!(began.elapsed() < 20 * second);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Long enough that a busy machine does not outlast it between two commands.
    let (pause, deadline) = (second * 2, Instant::now() + second * 2);
    let began = Instant::now();
    let paused = control.pause_scope(PauseScope::Everything, pause, deadline).await.unwrap();
    assert_eq!(paused, Outcome::Done(Paused { scope: PauseScope::Everything, offset: 0 }));
    assert!(began.elapsed() < pause, "the offset was read in the pause");
    let held = control.config_get("port", Duration::from_millis(50)).await.unwrap();
    assert_eq!(held, Outcome::Pending);
    assert!(control.settled(), "a question changes nothing");
    let port = control.config_get("port", 10 * second).await.unwrap();
    assert_eq!(port, Outcome::Done(Some(server.address.port().to_string())));
    // Redis counts in whole milliseconds.
    assert!(began.elapsed() + Duration::from_millis(1) >= pause);
}
