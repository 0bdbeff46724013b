//! Whole daemons that speak mutual TLS: to each other, to operators, and to nobody else.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use redkeep_lab::{
    ADMIN_PORT, ClusterFile, DataSet, GROUP, Host, Lab, Mono, Pair, RedisOptions, ctl, ctl_with,
    tls_dir, wait_until,
};

const LIMIT: Duration = Duration::from_secs(60);
/// Writes of this long before the fault tell who was master.
const WARM: Duration = Duration::from_millis(100);

/// Signs certificates of one cluster.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key)?.pem();
        Ok(Authority { issuer: Issuer::new(params, key), pem })
    }

    /// Puts `FILE.pem` and `FILE.key` on a host; the certificate's subject alternative name is `name`.
    fn issue(&self, host: &Host, file: &str, name: &str) -> Result<()> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer)?;
        let dir = tls_dir(host);
        fs::write(dir.join(file).with_extension("pem"), certificate.pem())?;
        let secret = dir.join(file).with_extension("key");
        fs::write(&secret, key.serialize_pem())?;
        fs::set_permissions(secret, fs::Permissions::from_mode(0o600))?;
        Ok(())
    }

    /// Everything that a host needs: the CA, its node's certificate and an operator's.
    fn equip(&self, host: &Host) -> Result<()> {
        fs::create_dir_all(tls_dir(host))?;
        fs::write(tls_dir(host).join("ca.pem"), &self.pem)?;
        self.issue(host, "node", host.name())?;
        self.issue(host, "operator", "operator")
    }
}

fn start() -> Result<(Authority, Pair)> {
    let lab = Lab::builder().build()?;
    let authority = Authority::new("cluster CA")?;
    let file = ClusterFile { tls: true, ..ClusterFile::founding(&lab, "300ms")? };
    file.nodes.iter().try_for_each(|(name, _)| authority.equip(lab.host(name)?))?;
    Ok((authority, Pair::start_in(lab, &file, &RedisOptions::default())?))
}

#[test]
fn failover_and_switchover_work_over_mutual_tls() -> Result<()> {
    let (_authority, mut pair) = start()?;
    pair.start_writers(&["na"])?;
    let old = pair.master()?;
    let begun = Mono::now();
    let fault = pair.redis(&old)?.process().kill()?;
    pair.wait_taken_over(&old, fault).with_context(|| pair.story(begun, Mono::now()))?;
    let new = pair.master()?;
    pair.restart_redis(&old, DataSet::Kept)?;
    pair.wait_replica(&old, &new, "w")?;
    let verdict = pair.outcome()?.since(begun - WARM).verdict(fault, Mono::now());
    println!("killed {old}: {verdict}");
    verdict.ensure_one_master()?;

    let begun = Mono::now();
    let done = pair.ctl(&["switchover", GROUP, "--to", &old, "--wait", "--yes"])?;
    ensure!(done.code == Some(0), "{done:?}");
    pair.wait_taken_over(&new, begun)?;
    pair.wait_replica(&new, &old, "w")?;
    let verdict = pair.outcome()?.since(begun - WARM).verdict(begun, Mono::now());
    println!("switchover to {old}: {verdict}");
    verdict.ensure_one_master()?;
    ensure!(verdict.lost == 0, "{verdict}");
    Ok(())
}

#[test]
fn operator_in_plain_text_or_of_another_authority_is_refused() -> Result<()> {
    let (_authority, pair) = start()?;
    ensure!(pair.ctl(&["status"])?.code == Some(0), "{:?}", pair.ctl(&["status"])?);
    // The client's host has no certificate: plain text.
    let plain = ctl(pair.lab(), "c", "w", &["status"])?;
    println!("plain text: {plain:?}");
    ensure!(plain.code == Some(3), "{plain:?}");
    ensure!(plain.stderr.contains("TLS"), "does not say what is wrong: {plain:?}");

    Authority::new("somebody else's CA")?.equip(pair.host("c")?)?;
    // It would trust the cluster, and is not trusted.
    fs::copy(tls_dir(pair.host("w")?).join("ca.pem"), tls_dir(pair.host("c")?).join("ca.pem"))?;
    let stranger = ctl(pair.lab(), "c", "w", &["status"])?;
    println!("another CA: {stranger:?}");
    ensure!(stranger.code == Some(3), "{stranger:?}");
    ensure!(stranger.stderr.contains("certificate"), "does not say what is wrong: {stranger:?}");

    // A server that is not the one it was asked for is not spoken to.
    let witness = pair.host("w")?;
    let file = |name: &str| tls_dir(witness).join(name).display().to_string();
    let options: Vec<String> = [
        ("--endpoint", format!("{}:{ADMIN_PORT}", witness.address())),
        ("--ca", file("ca.pem")),
        ("--cert", file("operator.pem")),
        ("--key", file("operator.key")),
        ("--server-name", "a".to_owned()),
    ]
    .into_iter()
    .flat_map(|(option, value)| [option.to_owned(), value])
    .collect();
    let mistaken = ctl_with(witness, &options, &["status"])?;
    println!("another name: {mistaken:?}");
    ensure!(mistaken.code == Some(3), "{mistaken:?}");
    ensure!(mistaken.stderr.contains("certificate"), "does not say what is wrong: {mistaken:?}");
    Ok(())
}

/// Starts the witness again with the certificate that lies there now, and waits until each of the two supervisors
/// has written a line with these words since.
fn restart_witness(pair: &mut Pair, said: [(&str, &[&str]); 2]) -> Result<()> {
    pair.supervisor("w")?.process().kill()?;
    let log = |pair: &Pair, host: &str| -> Result<String> {
        Ok(pair.supervisor(host)?.process().log_text())
    };
    let lengths: Result<Vec<usize>> =
        said.iter().map(|(host, _)| Ok(log(pair, host)?.len())).collect();
    pair.restart_supervisor("w")?;
    for ((host, words), before) in said.into_iter().zip(lengths?) {
        let mut last = String::new();
        let found = || {
            last = log(pair, host).ok()?.get(before..)?.to_owned();
            let all = |line: &str| words.iter().all(|word| line.contains(word));
            last.lines().any(all).then_some(())
        };
        let found = wait_until(&format!("{words:?} in the log of {host}"), LIMIT, found);
        found.with_context(|| last)?;
    }
    Ok(())
}

#[test]
fn peer_with_a_wrong_certificate_is_refused_and_both_sides_say_why() -> Result<()> {
    let (authority, mut pair) = start()?;
    pair.start_writers(&[])?;
    let before = pair.assignment("a")?;
    let witness = tls_dir(pair.host("w")?);
    let ca = fs::read(witness.join("ca.pem"))?;

    Authority::new("somebody else's CA")?.issue(pair.host("w")?, "node", "w")?;
    let not_accepted = ["peer=w", "its certificate is not accepted"];
    let refused = ["does not accept this node's certificate"];
    restart_witness(&mut pair, [("w", &refused), ("a", &not_accepted)])?;

    // The right authority, but the name of another node.
    authority.issue(pair.host("w")?, "node", "b")?;
    let refused = ["refuses this node", "does not name"];
    restart_witness(&mut pair, [("w", &refused), ("a", &not_accepted)])?;
    ensure!(fs::read(witness.join("ca.pem"))? == ca, "the test changed the CA");

    // The pair went on without the witness, and takes it back.
    pair.keep_writing(WARM)?;
    authority.issue(pair.host("w")?, "node", "w")?;
    pair.supervisor("w")?.process().kill()?;
    pair.restart_supervisor("w")?;
    pair.wait_all_heard("a")?;
    let after = pair.assignment("a")?;
    ensure!(after.is_as(&before), "moved: {after:?}");
    let outcome = pair.finish_writers()?;
    ensure!(outcome.lost().is_empty(), "lost {} writes", outcome.lost().len());
    Ok(())
}
