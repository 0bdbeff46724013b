//! One look at a Redis over the network: does it let a new client in?
//!
//! An answer is enough, whatever it says: the password belongs to others, and a Redis that loads or cannot write is for its own
//! host to judge. But one that has no room for a client, or takes none from other hosts, is as good as a closed port.

use std::{net::SocketAddr, time::Duration};

use super::{
    connection::first_answer,
    endpoint::{RedisAddress, RedisEndpoint, RedisStream},
    failure::RedisFailure,
};

/// Connects, says `PING`, and reads one line; all within `timeout`.
///
/// # Errors
/// [`RedisFailure`]: no connection, no answer in time, `maxclients`, protected mode, or something that is no Redis.
pub async fn look_at(target: SocketAddr, timeout: Duration) -> Result<(), RedisFailure> {
    tokio::time::timeout(timeout, look(target))
        .await
        .unwrap_or(Err(RedisFailure::Timeout { after: timeout }))
}

async fn look(target: SocketAddr) -> Result<(), RedisFailure> {
    let endpoint = RedisEndpoint::new(RedisAddress::Tcp(target));
    match endpoint.connect().await? {
        RedisStream::Tcp(mut stream) => judge(&first_answer(&mut stream).await?),
        RedisStream::Unix(_) => Err(RedisFailure::Protocol { what: "an address of TCP" }),
    }
}

fn judge(line: &str) -> Result<(), RedisFailure> {
    let Some(error) = line.strip_prefix('-') else {
        return match line.starts_with('+') {
            true => Ok(()),
            false => Err(RedisFailure::Protocol { what: "the first reply" }),
        };
    };
    let (code, text) = error.split_once(' ').unwrap_or((error, ""));
    match RedisFailure::from_reply(code, text, "PING") {
        failure @ (RedisFailure::MaxClients | RedisFailure::ProtectedMode) => Err(failure),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    const LIMIT: Duration = Duration::from_millis(300);

    #[test]
    fn every_answer_counts_but_those_that_let_nobody_in() {
        for line in ["+PONG", "-NOAUTH Authentication required.", "-LOADING Redis is loading"] {
            assert_eq!(judge(line), Ok(()), "{line}");
        }
        assert_eq!(judge("-ERR max number of clients reached"), Err(RedisFailure::MaxClients));
        assert_eq!(judge("-DENIED Redis is running"), Err(RedisFailure::ProtectedMode));
        assert!(judge("SSH-2.0-OpenSSH").is_err());
    }

    #[tokio::test]
    async fn a_port_that_answers_is_told_from_one_that_is_silent_and_one_that_is_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        // The kernel connects; nobody answers.
        let silent = look_at(target, LIMIT).await;
        assert_eq!(silent, Err(RedisFailure::Timeout { after: LIMIT }));
        let serve = async {
            let _unanswered = listener.accept().await.unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 14];
            stream.read_exact(&mut asked).await.unwrap();
            stream.write_all(b"+PONG\r\n").await.unwrap();
            asked
        };
        let (looked, asked) = tokio::join!(look_at(target, LIMIT), serve);
        assert_eq!((looked, &asked), (Ok(()), b"*1\r\n$4\r\nPING\r\n"));
        drop(listener);
        assert_eq!(look_at(target, LIMIT).await, Err(RedisFailure::Refused));
    }
}
