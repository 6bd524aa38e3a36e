//! Mutual TLS: which certificates are accepted, and the rustls configurations of both directions.
//!
//! Each reason for refusing has a TLS alert of its own, so that both ends learn *why* and can name the remedy:
//! see [`Refusal`]. There is no session resumption: every connection proves its peer anew.

use std::sync::Arc;
use std::time::Duration;

use quinn::TransportConfig;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerMisbehaved,
    RootCertStore, SignatureScheme,
};

use crate::NetError;
use crate::counters::Refusal;
use crate::identity::{self, Identity, crypto};

/// Protocol name in the handshake. A change that old agents cannot understand gets a new number.
const ALPN: &[u8] = b"mainstay/1";

/// The instant at which certificates are checked. Why not now: the hosts' clocks may be wrong, and membership must not
/// depend on them.
const CHECKED_AT: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1_750_000_000));

/// The names in the certificates of the configured peers.
#[derive(Debug, Clone)]
pub(crate) struct PeerNames {
    cluster_id: String,
    names: Vec<(String, ServerName<'static>)>,
}

impl PeerNames {
    pub(crate) fn new<'a>(cluster_id: &str, hosts: impl Iterator<Item = &'a str>) -> Result<Self, NetError> {
        let mut names = Vec::new();
        for host in hosts {
            let name = ServerName::try_from(identity::dns_name(host, cluster_id))
                .map_err(|_| NetError::InvalidName { what: "host id", name: host.to_owned() })?;
            names.push((host.to_owned(), name));
        }
        Ok(Self { cluster_id: cluster_id.to_owned(), names })
    }

    /// The configured peer that a certificate is for. The certificate's chain must have been verified already.
    pub(crate) fn host_of(&self, certificate: &CertificateDer<'_>) -> Option<&str> {
        let parsed = ParsedCertificate::try_from(certificate).ok()?;
        self.names
            .iter()
            .find(|(_, name)| verify_server_name(&parsed, name).is_ok())
            .map(|(host, _)| host.as_str())
    }
}

/// Accepts members of this cluster that are configured as peers, and nobody else.
#[derive(Debug)]
struct MemberVerifier {
    authority: RootCertStore,
    names: PeerNames,
    /// The dialled host; `None` where any peer may come in.
    dialled: Option<String>,
    provider: Arc<CryptoProvider>,
}

impl MemberVerifier {
    fn new(identity: &Identity, names: &PeerNames, dialled: Option<&str>) -> Result<Arc<Self>, NetError> {
        let mut authority = RootCertStore::empty();
        authority.add(identity.authority.clone()).map_err(crypto("trusting the cluster's certificate"))?;
        Ok(Arc::new(Self {
            authority,
            names: names.clone(),
            dialled: dialled.map(str::to_owned),
            provider: provider(),
        }))
    }

    fn verify(&self, leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Result<(), Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.authority,
            intermediates,
            CHECKED_AT,
            algorithms,
        )
        .map_err(|_| match identity::claimed_name(leaf) {
            Some((_, cluster)) if cluster != self.names.cluster_id => refuse(Refusal::OtherCluster),
            Some(_) | None => refuse(Refusal::WrongKey),
        })?;
        match (self.names.host_of(leaf), self.dialled.as_deref()) {
            (None, None) => Err(refuse(Refusal::UnknownHost)),
            (Some(host), Some(dialled)) if host != dialled => Err(refuse(Refusal::WrongHost)),
            (None, Some(_)) => Err(refuse(Refusal::WrongHost)),
            (Some(_), Some(_) | None) => Ok(()),
        }
    }

    fn signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }
}

/// The error whose TLS alert stands for `refusal`; `Refusal::from_alert` is the way back.
fn refuse(refusal: Refusal) -> Error {
    #[derive(Debug, thiserror::Error)]
    #[error("another host of the cluster answers at this address")]
    struct WrongHostError;

    let error = match refusal {
        Refusal::OtherCluster => CertificateError::NotValidForName,
        Refusal::UnknownHost | Refusal::ByPeer => CertificateError::ApplicationVerificationFailure,
        Refusal::WrongHost => CertificateError::Other(OtherError(Arc::new(WrongHostError))),
        Refusal::WrongKey | Refusal::OtherVersion | Refusal::Handshake => CertificateError::UnknownIssuer,
    };
    Error::InvalidCertificate(error)
}

impl ServerCertVerifier for MemberVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for MemberVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

fn no_tls12() -> Error {
    // QUIC is TLS 1.3 only.
    Error::PeerMisbehaved(PeerMisbehaved::SelectedTls12UsingTls13VersionExtension)
}

fn provider() -> Arc<CryptoProvider> {
    // Given explicitly: with several providers in the dependency tree, the process-wide default would be a guess.
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Configuration for dialling `host`.
pub(crate) fn client_config(
    identity: &Identity,
    names: &PeerNames,
    host: &str,
    transport: Arc<TransportConfig>,
) -> Result<quinn::ClientConfig, NetError> {
    let verifier = MemberVerifier::new(identity, names, Some(host))?;
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(crypto("configuring TLS"))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(vec![identity.leaf.clone()], identity.private_key())
        .map_err(crypto("loading the host's certificate"))?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.resumption = Resumption::disabled();
    let quic = QuicClientConfig::try_from(tls).map_err(crypto("configuring QUIC"))?;
    let mut client = quinn::ClientConfig::new(Arc::new(quic));
    client.transport_config(transport);
    Ok(client)
}

/// Configuration for those who dial us.
pub(crate) fn server_config(
    identity: &Identity,
    names: &PeerNames,
    transport: Arc<TransportConfig>,
) -> Result<quinn::ServerConfig, NetError> {
    let verifier = MemberVerifier::new(identity, names, None)?;
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(crypto("configuring TLS"))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![identity.leaf.clone()], identity.private_key())
        .map_err(crypto("loading the host's certificate"))?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    tls.send_tls13_tickets = 0;
    let quic = QuicServerConfig::try_from(tls).map_err(crypto("configuring QUIC"))?;
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(quic));
    server.transport_config(transport);
    // Bounds what strangers can make an agent of 20 MB hold before they have proven anything.
    server.max_incoming(64);
    server.incoming_buffer_size(16 * 1024);
    server.incoming_buffer_size_total(256 * 1024);
    Ok(server)
}
