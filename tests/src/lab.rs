//! The lab: hosts on one switch, and what can go wrong with them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::cleanup::Claim;
use crate::host::{Family, Host, HostSpec};
use crate::pair::{VIP, VIP_V6};
use crate::process::wait_until;
use crate::switch::{Direction, Switch};
use crate::time::Mono;

/// Nobody listens here on any host: a segment to it is refused by the host's kernel.
const CLOSED_PORT: u16 = 9;

/// What a lab consists of; [`Builder::default`] is the founding set-up.
#[derive(Clone, Debug)]
pub struct Builder {
    hosts: Vec<HostSpec>,
    family: Family,
}

impl Default for Builder {
    /// Hosts `a`, `b` with Redis, `w` a witness, `c` a client, `na` a client on `a`'s side.
    fn default() -> Self {
        Self::empty()
            .host("a", 1)
            .host("b", 2)
            .host("w", 3)
            .host("c", 50)
            .neighbour("na", 51, "a")
            .neighbour("nb", 52, "b")
    }
}

impl Builder {
    /// A lab without hosts.
    pub fn empty() -> Self {
        Builder { hosts: Vec::new(), family: Family::V4 }
    }

    /// Cluster and clients speak IPv6, from end to end; hosts have both addresses in any case.
    #[must_use]
    pub fn ipv6(mut self) -> Self {
        self.family = Family::V6;
        self
    }

    /// Adds a host with the addresses 10.99.0.N and fd99::N.
    #[must_use]
    pub fn host(self, name: &str, number: u8) -> Self {
        self.neighbour(name, number, name)
    }

    /// Adds a host that stays connected to `beside` through every cut of that host.
    #[must_use]
    pub fn neighbour(mut self, name: &str, number: u8, beside: &str) -> Self {
        let (name, side) = (name.to_owned(), beside.to_owned());
        self.hosts.push(HostSpec { name, number, side, family: Family::V4 });
        self
    }

    /// Builds it all. Needs root, `ip`, `nft` and `setpriv`.
    pub fn build(self) -> Result<Lab> {
        ensure!(rustix::process::geteuid().is_root(), "network namespaces need root");
        raise_file_limit();
        let claim = Claim::take()?;
        let switch_name = format!("{}-sw", claim.prefix());
        let switch = Switch::create(&switch_name)?;
        let mut hosts = BTreeMap::new();
        for mut spec in self.hosts {
            spec.family = self.family;
            let dir = claim.dir().join(&spec.name);
            let name = spec.name.clone();
            let host = Host::create(spec, claim.prefix(), &switch_name, dir)
                .with_context(|| format!("build host {name}"))?;
            hosts.insert(name, host);
        }
        Ok(Lab { family: self.family, hosts, switch, claim })
    }
}

/// Everything of one run; its drop leaves nothing behind.
///
/// Fields are dropped in this order: the claim's drop kills what is left and deletes names.
#[derive(Debug)]
pub struct Lab {
    family: Family,
    hosts: BTreeMap<String, Host>,
    switch: Switch,
    claim: Claim,
}

impl Lab {
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Prefix of all names of this lab.
    pub fn prefix(&self) -> &str {
        self.claim.prefix()
    }

    /// Directory of this lab; one directory a host below it.
    pub fn dir(&self) -> &Path {
        self.claim.dir()
    }

    /// The founding group's virtual address: 10.99.0.100 or fd99::100.
    pub fn vip(&self) -> IpAddr {
        match self.family {
            Family::V4 => IpAddr::V4(VIP),
            Family::V6 => IpAddr::V6(VIP_V6),
        }
    }

    pub fn host(&self, name: &str) -> Result<&Host> {
        self.hosts.get(name).with_context(|| format!("no host {name}"))
    }

    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.values()
    }

    /// Nothing passes between the host (with its neighbours) and the rest.
    pub fn cut(&self, host: &str) -> Result<Mono> {
        let directions = self.across(host, true, true)?;
        self.switch.change(|dropped| dropped.extend(directions))
    }

    /// The host hears nobody; what it sends arrives.
    pub fn deaf(&self, host: &str) -> Result<Mono> {
        let directions = self.across(host, true, false)?;
        self.switch.change(|dropped| dropped.extend(directions))
    }

    /// Nobody hears the host; what others send to it arrives.
    pub fn mute(&self, host: &str) -> Result<Mono> {
        let directions = self.across(host, false, true)?;
        self.switch.change(|dropped| dropped.extend(directions))
    }

    /// Cuts the link between two hosts alone, both ways; neighbours are not meant.
    pub fn cut_between(&self, one: &str, other: &str) -> Result<Mono> {
        let (one, other) = (self.host(one)?.port(), self.host(other)?.port());
        self.switch.change(|dropped| {
            dropped.insert((one.clone(), other.clone()));
            dropped.insert((other, one));
        })
    }

    /// Undoes [`Lab::cut_between`].
    pub fn heal_between(&self, one: &str, other: &str) -> Result<Mono> {
        let (one, other) = (self.host(one)?.port(), self.host(other)?.port());
        self.switch.change(|dropped| {
            dropped.remove(&(one.clone(), other.clone()));
            dropped.remove(&(other, one));
        })
    }

    /// Cuts from `from` to `to` only.
    pub fn cut_one_way(&self, from: &str, to: &str) -> Result<Mono> {
        let direction = (self.host(from)?.port(), self.host(to)?.port());
        self.switch.change(|dropped| {
            dropped.insert(direction);
        })
    }

    /// Undoes all cuts that touch the host or its neighbours.
    pub fn heal(&self, host: &str) -> Result<Mono> {
        let side = self.ports_of_side(host)?;
        self.switch.change(|dropped| {
            dropped.retain(|(from, to)| !side.contains(from) && !side.contains(to));
        })
    }

    /// Undoes all cuts.
    pub fn heal_all(&self) -> Result<Mono> {
        self.switch.change(std::collections::BTreeSet::clear)
    }

    /// Loss of power: silent at once, all processes killed, link and namespace gone.
    ///
    /// The link is cut first, so that no FIN or RST of the dying processes gets out. Writers in
    /// the host's own namespace end too; its neighbours live on.
    pub fn power_off(&self, name: &str) -> Result<Mono> {
        let host = self.host(name)?;
        let port = host.port();
        let others: Vec<String> =
            self.hosts.values().map(Host::port).filter(|other| *other != port).collect();
        let at = self.switch.change(|dropped| {
            for other in others {
                dropped.insert((port.clone(), other.clone()));
                dropped.insert((other, port.clone()));
            }
        })?;
        host.kill_all()?;
        host.tear_down()?;
        Ok(at)
    }

    /// Power comes back: new namespace, no rules, only the host's own addresses, same directory.
    ///
    /// Nothing is started. The returned instant is that of the link's return.
    pub fn power_on(&self, name: &str) -> Result<Mono> {
        let host = self.host(name)?;
        host.boot()?;
        let port = host.port();
        self.switch.change(|dropped| dropped.retain(|(from, to)| *from != port && *to != port))
    }

    /// [`Lab::power_off`], then [`Lab::power_on`].
    pub fn reboot(&self, name: &str) -> Result<Mono> {
        let at = self.power_off(name)?;
        self.power_on(name)?;
        Ok(at)
    }

    /// Whether a TCP segment from `from` is answered by the kernel of `to`, by whatever.
    pub fn reaches(&self, from: &str, to: &str) -> Result<bool> {
        let target = SocketAddr::from((self.host(to)?.address(), CLOSED_PORT));
        let limit = Duration::from_millis(100);
        let attempt = move || std::net::TcpStream::connect_timeout(&target, limit);
        let error = self.host(from)?.in_namespace(attempt)?.err();
        Ok(error.is_none_or(|error| error.kind() == std::io::ErrorKind::ConnectionRefused))
    }

    /// Waits until [`Lab::reaches`].
    pub fn wait_reachable(&self, from: &str, to: &str, limit: Duration) -> Result<()> {
        wait_until(&format!("{from} to reach {to}"), limit, || {
            self.reaches(from, to).ok()?.then_some(())
        })
    }

    fn ports_of_side(&self, host: &str) -> Result<Vec<String>> {
        self.host(host)?;
        Ok(self.hosts.values().filter(|each| each.side() == host).map(Host::port).collect())
    }

    fn across(&self, host: &str, inward: bool, outward: bool) -> Result<Vec<Direction>> {
        let side = self.ports_of_side(host)?;
        let mut directions = Vec::new();
        for outside in self.hosts.values().map(Host::port).filter(|port| !side.contains(port)) {
            for inside in &side {
                if inward {
                    directions.push((outside.clone(), inside.clone()));
                }
                if outward {
                    directions.push((inside.clone(), outside.clone()));
                }
            }
        }
        Ok(directions)
    }
}

/// Writers may hold a thousand connections; the soft limit is often 1024.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Failing leaves the old limit, and a run that needs more says so by its errors.
    let _ = setrlimit(Resource::Nofile, limit);
}
