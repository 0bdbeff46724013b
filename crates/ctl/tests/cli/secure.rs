//! Mutual TLS, by files and by environment.

use std::{fs, path::PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

use crate::support::{Prepared, Supervisor, Told, command, healthy, told};

/// PEM files of an authority, of the node a, and of an operator.
struct Pem {
    dir: PathBuf,
    server: ServerTlsConfig,
}

impl Drop for Pem {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.dir).ok();
    }
}

impl Pem {
    fn new(test: &str) -> Self {
        let name = format!("redkeepctl-{test}-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test ca");
        let ca = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let issue = |name: &str| {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
        };
        let (operator, operator_key) = issue("operator");
        for (file, text) in [("ca", &ca), ("cert", &operator), ("key", &operator_key)] {
            fs::write(dir.join(file), text).unwrap();
        }
        let (node, node_key) = issue("a");
        let server = ServerTlsConfig::new()
            .identity(Identity::from_pem(node, node_key))
            .client_ca_root(Certificate::from_pem(ca));
        Self { dir, server }
    }

    fn start(&self) -> Supervisor {
        let prepared = Prepared { statuses: vec![healthy()].into(), ..Prepared::default() };
        Supervisor::start_with(prepared, Some(self.server.clone()))
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// `redkeepctl status` with all files, under this server name.
    fn status(&self, server: &Supervisor, name: &str) -> Told {
        let (ca, cert, key) = (self.file("ca"), self.file("cert"), self.file("key"));
        server.run(&["--ca", &ca, "--cert", &cert, "--key", &key, "--server-name", name, "status"])
    }
}

#[test]
fn both_sides_show_their_certificates() {
    let pem = Pem::new("both");
    let server = pem.start();
    let answered = pem.status(&server, "a");
    assert_eq!(answered.code, 0, "{}", answered.stderr);
    let by_environment = command(&["--endpoint", &server.addr.to_string(), "status"])
        .env("REDKEEP_CA", pem.file("ca"))
        .env("REDKEEP_CERT", pem.file("cert"))
        .env("REDKEEP_KEY", pem.file("key"))
        .env("REDKEEP_SERVER_NAME", "a")
        .output()
        .unwrap();
    assert_eq!(told(by_environment).code, 0);
}

#[test]
fn another_name_or_plain_text_is_unreachable() {
    let pem = Pem::new("other");
    let server = pem.start();
    let other = pem.status(&server, "b");
    assert_eq!(other.code, 3, "{}", other.stderr);
    assert!(other.stderr.contains("certificate"), "{}", other.stderr);
    let plain = server.run(&["status"]);
    assert_eq!(plain.code, 3, "{}", plain.stderr);
    assert!(plain.stderr.contains("TLS") && plain.stderr.contains("--ca"), "{}", plain.stderr);
}

#[test]
fn operator_of_another_authority_is_told_that_the_certificate_is_why() {
    let (pem, other) = (Pem::new("ours"), Pem::new("theirs"));
    let server = pem.start();
    let files = [("--ca", &pem, "ca"), ("--cert", &other, "cert"), ("--key", &other, "key")];
    let files = files.map(|(option, pem, name)| (option, pem.file(name)));
    let mut words: Vec<&str> =
        files.iter().flat_map(|(option, file)| [*option, file.as_str()]).collect();
    words.extend(["--server-name", "a", "status"]);
    let refused = server.run(&words);
    assert_eq!(refused.code, 3, "{}", refused.stderr);
    assert!(refused.stderr.contains("certificate"), "{}", refused.stderr);
}
