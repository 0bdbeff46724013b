//! Mutual TLS between supervisors, and towards operators. The identity of a peer is the name in its certificate.

use std::{io, path::Path};

use pki_types::ServerName;
use tonic::{
    Request,
    transport::{Certificate, CertificateDer, ClientTlsConfig, Identity, ServerTlsConfig},
};
use webpki::EndEntityCert;

/// The PEM files of `[tls]`, read once at start.
pub(crate) struct TlsFiles {
    ca: Vec<u8>,
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl std::fmt::Debug for TlsFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsFiles(..)")
    }
}

impl TlsFiles {
    /// # Errors
    /// A file cannot be read.
    pub(crate) fn read(ca: &Path, cert: &Path, key: &Path) -> io::Result<Self> {
        Ok(Self { ca: std::fs::read(ca)?, cert: std::fs::read(cert)?, key: std::fs::read(key)? })
    }

    #[cfg(test)]
    pub(crate) fn from_pem(ca: &str, cert: &str, key: &str) -> Self {
        Self { ca: ca.into(), cert: cert.into(), key: key.into() }
    }

    fn identity(&self) -> Identity {
        Identity::from_pem(&self.cert, &self.key)
    }

    /// Towards a server whose certificate must name `name`.
    pub(crate) fn client(&self, name: &str) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.ca))
            .identity(self.identity())
            .domain_name(name)
    }

    /// Only clients with a certificate of our CA.
    pub(crate) fn server(&self) -> ServerTlsConfig {
        ServerTlsConfig::new()
            .identity(self.identity())
            .client_ca_root(Certificate::from_pem(&self.ca))
    }
}

/// The certificate a caller showed; the TLS layer has verified its chain.
#[derive(Debug)]
pub(crate) struct PeerCertificate(CertificateDer<'static>);

impl PeerCertificate {
    pub(crate) fn of<T>(request: &Request<T>) -> Option<Self> {
        request.peer_certs().and_then(|chain| chain.first().cloned()).map(Self)
    }

    /// A subject alternative name (DNS) of the certificate is `name`.
    pub(crate) fn names(&self, name: &str) -> bool {
        let Ok(certificate) = EndEntityCert::try_from(&self.0) else { return false };
        ServerName::try_from(name)
            .is_ok_and(|n| certificate.verify_is_valid_for_subject_name(&n).is_ok())
    }
}
