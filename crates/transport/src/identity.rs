//! Who this agent is: keys and certificates, all derived from the cluster's key, none on disk.
//!
//! Every agent makes the same certificate authority in memory and signs itself a fresh leaf certificate for its host id.
//! Knowing the cluster key is being a member; there is nothing to enrol, renew or revoke. A new key is a new cluster
//! as far as the transport is concerned.
//!
//! Safety argument: each derived key has its own label and the cluster's id in HKDF's `info`, separated by a zero byte
//! that no id can contain, so no two purposes, clusters or hosts can get the same key.

use aws_lc_rs::signature::Ed25519KeyPair;
use aws_lc_rs::{hkdf, hmac};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ED25519, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::NetError;

/// Domain separation: a key of this protocol version serves nothing else.
const SALT: &[u8] = b"mainstay agent transport v1";

/// Ends all names in certificates, so that a certificate of something else is never taken for one of ours.
const NAME_END: &str = ".mainstay";

/// Certificate, keys and trust anchor of this agent.
pub(crate) struct Identity {
    /// The authority that all members share.
    pub(crate) authority: CertificateDer<'static>,
    /// This agent's certificate.
    pub(crate) leaf: CertificateDer<'static>,
    /// Private key of `leaf`, as PKCS #8.
    leaf_key: Vec<u8>,
    /// Signs stateless resets; the same after a reboot.
    pub(crate) reset_key: hmac::Key,
    /// Marks connection ids as ours; the same after a reboot.
    pub(crate) connection_id_key: u64,
}

impl Identity {
    /// Derives everything for host `me` of cluster `cluster_id`.
    pub(crate) fn derive(key: &[u8; 32], cluster_id: &str, me: &str) -> Result<Self, NetError> {
        let authority_key = authority_key(key, cluster_id)?;
        let leaf_key = KeyPair::generate_for(&PKCS_ED25519).map_err(crypto("making the host's key"))?;
        let authority_params = authority_params(cluster_id);
        let authority = authority_params
            .self_signed(&authority_key)
            .map_err(crypto("making the cluster's certificate"))?;
        let issuer = Issuer::new(authority_params, authority_key);
        let leaf = leaf_params(cluster_id, me)?
            .signed_by(&leaf_key, &issuer)
            .map_err(crypto("making the host's certificate"))?;

        let mut connection_id_key = [0; 8];
        expand(key, &["connection-id", cluster_id, me], &mut connection_id_key)?;
        let mut reset_key = [0; 32];
        expand(key, &["stateless-reset", cluster_id, me], &mut reset_key)?;
        Ok(Self {
            authority: authority.der().clone(),
            leaf: leaf.der().clone(),
            leaf_key: leaf_key.serialize_der(),
            reset_key: hmac::Key::new(hmac::HMAC_SHA256, &reset_key),
            connection_id_key: u64::from_le_bytes(connection_id_key),
        })
    }

    /// The private key of the leaf, in the form that rustls takes.
    pub(crate) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.leaf_key.clone()))
    }
}

/// The DNS name that stands in the certificate of a host.
pub(crate) fn dns_name(host: &str, cluster_id: &str) -> String {
    format!("{host}.{cluster_id}{NAME_END}")
}

/// The host and cluster that a certificate *claims* to be for. Nothing is verified: good for the text of a log line and
/// for telling "other cluster" from "wrong key", for nothing else.
pub(crate) fn claimed_name(certificate: &[u8]) -> Option<(&str, &str)> {
    // A DNS name in a subjectAltName is tag 0x82, a length byte, the name. Why not a parser: this is a diagnosis of
    // untrusted bytes, and a search cannot be led astray further than to a wrong word in a log line.
    certificate.windows(2).enumerate().find_map(|(at, head)| {
        let &[0x82, length] = head else { return None };
        let name = certificate.get(at + 2..at + 2 + usize::from(length))?;
        let name = std::str::from_utf8(name).ok()?.strip_suffix(NAME_END)?;
        let (host, cluster) = name.split_once('.')?;
        (is_label(host) && is_label(cluster)).then_some((host, cluster))
    })
}

/// Refuses ids that cannot be a label of a DNS name.
pub(crate) fn check_label(what: &'static str, name: &str) -> Result<(), NetError> {
    if is_label(name) {
        return Ok(());
    }
    Err(NetError::InvalidName { what, name: name.to_owned() })
}

fn is_label(name: &str) -> bool {
    // Why no upper case: DNS names compare without case, host ids compare with it.
    (1..=63).contains(&name.len())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn authority_key(key: &[u8; 32], cluster_id: &str) -> Result<KeyPair, NetError> {
    let mut seed = [0; 32];
    expand(key, &["certificate-authority ed25519", cluster_id], &mut seed)?;
    let pair =
        Ed25519KeyPair::from_seed_unchecked(&seed).map_err(crypto("deriving the cluster's signing key"))?;
    let pkcs8 = pair.to_pkcs8().map_err(crypto("encoding the cluster's signing key"))?;
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(pkcs8.as_ref()), &PKCS_ED25519)
        .map_err(crypto("loading the cluster's signing key"))
}

fn authority_params(cluster_id: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(&format!("mainstay cluster {cluster_id}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    always_valid(&mut params);
    params
}

fn leaf_params(cluster_id: &str, me: &str) -> Result<CertificateParams, NetError> {
    let mut params = CertificateParams::new(vec![dns_name(me, cluster_id)])
        .map_err(crypto("naming the host's certificate"))?;
    // Authority and leaf must have different names: alike, a verifier takes the leaf for self-signed.
    params.distinguished_name = common_name(&format!("mainstay host {me}"));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    always_valid(&mut params);
    Ok(params)
}

fn common_name(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn always_valid(params: &mut CertificateParams) {
    // Hosts whose clocks are wrong must still find each other.
    params.not_before = date_time_ymd(1970, 1, 2);
    params.not_after = date_time_ymd(2100, 1, 1);
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn expand(key: &[u8; 32], purpose: &[&str], out: &mut [u8]) -> Result<(), NetError> {
    let info: Vec<&[u8]> = purpose.iter().flat_map(|part| [part.as_bytes(), b"\0"]).collect();
    let failed = |_| NetError::Crypto { what: "deriving a key", why: "HKDF refused".to_owned() };
    hkdf::Salt::new(hkdf::HKDF_SHA256, SALT)
        .extract(key)
        .expand(&info, Length(out.len()))
        .and_then(|okm| okm.fill(out))
        .map_err(failed)
}

/// Makes an error of the cryptographic library ours.
pub(crate) fn crypto<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> NetError {
    move |error| NetError::Crypto { what, why: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claimed_name_is_found_in_a_real_certificate() {
        let identity = Identity::derive(&[7; 32], "blue", "host-12").expect("identity");
        assert_eq!(claimed_name(&identity.leaf), Some(("host-12", "blue")));
        assert_eq!(claimed_name(&identity.authority), None);
    }

    #[test]
    fn keys_are_stable_over_restarts_and_differ_between_hosts_and_clusters() {
        let derive =
            |cluster, host| Identity::derive(&[7; 32], cluster, host).expect("identity").connection_id_key;
        assert_eq!(derive("blue", "host-1"), derive("blue", "host-1"));
        assert_ne!(derive("blue", "host-1"), derive("blue", "host-2"));
        assert_ne!(derive("blue", "host-1"), derive("red", "host-1"));
    }

    #[test]
    fn labels() {
        assert!(is_label("host-1") && is_label("7f3a"));
        assert!(
            !is_label("")
                && !is_label("Host-1")
                && !is_label("a.b")
                && !is_label("-a")
                && !is_label(&"a".repeat(64))
        );
    }
}
