//! From endpoints to a connection: the first that answers is taken.

use std::{env, error::Error, fs, path::PathBuf, time::Duration};

use redkeep_proto::admin::v1::{
    GetStatusRequest, Status as ClusterStatus, admin_service_client::AdminServiceClient,
};
use tokio::time::{Instant, timeout_at};
use tonic::{
    Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use crate::{args::Args, failure::Failure};

const DEFAULT_ENDPOINT: &str = "127.0.0.1:7601";
/// A host that is gone answers nothing; the next endpoint must have its turn.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

pub(crate) type Client = AdminServiceClient<Channel>;

/// Where and how to ask, and until when.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) endpoints: Vec<String>,
    tls: Option<ClientTlsConfig>,
    server_name: Option<String>,
    pub(crate) deadline: Instant,
}

impl Target {
    /// From the command line, else from the environment.
    ///
    /// # Errors
    /// A file cannot be read, or the TLS options do not go together.
    pub(crate) fn of(args: &Args) -> Result<Self, Failure> {
        let mut endpoints = args.endpoint.clone();
        if let (true, Some(listed)) = (endpoints.is_empty(), variable("REDKEEP_ENDPOINT")) {
            endpoints = listed.split(',').map(|e| e.trim().to_owned()).collect();
        }
        endpoints.retain(|e| !e.is_empty());
        if endpoints.is_empty() {
            endpoints.push(DEFAULT_ENDPOINT.to_owned());
        }
        endpoints.iter().try_for_each(|e| check_endpoint(e))?;
        let file = |given: &Option<PathBuf>, name| {
            given.clone().or_else(|| variable(name).map(PathBuf::from))
        };
        let ca = file(&args.ca, "REDKEEP_CA");
        let cert = file(&args.cert, "REDKEEP_CERT");
        let key = file(&args.key, "REDKEEP_KEY");
        let server_name = args.server_name.clone().or_else(|| variable("REDKEEP_SERVER_NAME"));
        let deadline = Instant::now() + args.timeout.0;
        Ok(Self { endpoints, tls: tls(ca, cert, key)?, server_name, deadline })
    }

    /// The same cluster, another node: its certificate names the node.
    pub(crate) fn node(&self, name: &str, admin: &str) -> Self {
        let server_name = Some(name.to_owned());
        Self { endpoints: vec![admin.to_owned()], server_name, ..self.clone() }
    }

    /// One endpoint that answers, with its own view.
    ///
    /// # Errors
    /// For people: why it does not.
    pub(crate) async fn ask(&self, endpoint: &str) -> Result<(Client, ClusterStatus), String> {
        let at = |what: &str, why: String| format!("{endpoint}: {what}{why}");
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let mut to = Endpoint::from_shared(format!("{scheme}://{endpoint}"))
            .map_err(|e| at("no address: ", chain(&e)))?
            .connect_timeout(CONNECT_LIMIT);
        if let Some(tls) = &self.tls {
            let tls = match &self.server_name {
                Some(name) => tls.clone().domain_name(name),
                None => tls.clone(),
            };
            to = to.tls_config(tls).map_err(|e| at("TLS: ", chain(&e)))?;
        }
        let limit = self.deadline.min(Instant::now() + CONNECT_LIMIT * 2);
        let asked = async {
            let channel = to.connect().await.map_err(|e| at("", chain(&e)))?;
            let mut client = AdminServiceClient::new(channel);
            // A refused client certificate shows at the first call only; so does a server of another kind.
            let request = GetStatusRequest { local_only: true, group: String::new() };
            let answer =
                client.get_status(request).await.map_err(|s| at("", self.unanswered(&s)))?;
            let status =
                answer.into_inner().status.ok_or_else(|| at("an empty answer", String::new()))?;
            Ok((client, status))
        };
        timeout_at(limit, asked)
            .await
            .unwrap_or_else(|_| Err(at("no answer in time", String::new())))
    }

    /// Why a call on a connection that stood was not answered.
    fn unanswered(&self, status: &Status) -> String {
        let text = with_causes(status.message().to_owned(), status.source());
        // What a supervisor answers has no source here; what broke the connection has.
        match (status.source(), &self.tls) {
            (None, _) => answer_of(status),
            (Some(_), None) => {
                format!("{text}; if it speaks TLS, give --ca, --cert and --key")
            }
            (Some(_), Some(_)) => {
                format!("{text}; it may not accept this certificate, which its CA must have signed")
            }
        }
    }

    /// The first endpoint that answers.
    ///
    /// # Errors
    /// None does.
    pub(crate) async fn first(&self) -> Result<(Client, ClusterStatus), Failure> {
        let mut tried = Vec::new();
        for endpoint in &self.endpoints {
            match self.ask(endpoint).await {
                Ok(found) => return Ok(found),
                Err(why) => tried.push(why),
            }
        }
        Err(Failure::Unreachable { tried })
    }
}

/// What a server that does not tell its status says of itself.
fn answer_of(status: &tonic::Status) -> String {
    match (status.code(), status.message()) {
        (tonic::Code::Unimplemented, _) => {
            "it answers, but not operators: give the node's `admin` address, not its `peer`".into()
        }
        (code, "") => format!("it answers {code:?}"),
        (_, text) => text.to_owned(),
    }
}

/// A port is always written: there is none to guess.
fn check_endpoint(endpoint: &str) -> Result<(), Failure> {
    let port = endpoint.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    port.filter(|p| *p != 0).map(|_| ()).ok_or_else(|| {
        let text = format!(
            "--endpoint {endpoint}: must be HOST:PORT, for example 10.99.0.1:7601 or [fd99::1]:7601"
        );
        Failure::Usage(text)
    })
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|v| !v.is_empty())
}

fn tls(
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
) -> Result<Option<ClientTlsConfig>, Failure> {
    let read = |path: PathBuf| fs::read(&path).map_err(|source| Failure::File { path, source });
    match (ca, cert, key) {
        (None, None, None) => Ok(None),
        (Some(ca), Some(cert), Some(key)) => Ok(Some(
            ClientTlsConfig::new()
                .ca_certificate(Certificate::from_pem(read(ca)?))
                .identity(Identity::from_pem(read(cert)?, read(key)?)),
        )),
        (Some(_) | None, _, _) => {
            let text = "--ca, --cert and --key go together: all three for TLS, none for plain text";
            Err(Failure::Usage(text.to_owned()))
        }
    }
}

/// An error with its causes.
fn chain(error: &dyn Error) -> String {
    with_causes(error.to_string(), error.source())
}

fn with_causes(mut text: String, mut source: Option<&(dyn Error + 'static)>) -> String {
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use tonic::Status;

    use super::{answer_of, check_endpoint};

    #[test]
    fn an_endpoint_has_a_port() {
        for good in ["10.99.0.1:7601", "[fd99::1]:7601", "host:1"] {
            assert!(check_endpoint(good).is_ok(), "{good}");
        }
        for bad in ["10.99.0.1", "host", "host:", "host:x", "host:0", "host:70000", "[fd99::1]"] {
            let told = check_endpoint(bad).unwrap_err();
            assert_eq!(told.code(), 2);
            assert!(told.to_string().contains(bad), "{told}");
        }
    }

    #[test]
    fn a_server_that_says_nothing_is_told_by_its_code() {
        let peer_port = Status::unimplemented("");
        assert!(answer_of(&peer_port).contains("`admin` address"), "{}", answer_of(&peer_port));
        assert_eq!(answer_of(&Status::internal("")), "it answers Internal");
        assert_eq!(answer_of(&Status::internal("why")), "why");
    }
}
