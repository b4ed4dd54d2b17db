//! TLS to the broker: rustls with the ring provider, and its failures in words.

use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};

use crate::config::TlsConfig;

/// Reads the certificates and makes the settings of a connection. Done for every connection, so that renewed
/// files are used without a restart.
///
/// # Errors
///
/// One sentence: which file cannot be used and what to give instead.
pub fn client_config(settings: &TlsConfig) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?
        .with_root_certificates(roots(settings)?);
    let config = match (&settings.cert_file, &settings.key_file) {
        (Some(cert), Some(key)) => {
            let chain = certificates(cert, "mqtt.cert_file")?;
            let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| {
                format!("mqtt.key_file {} holds no usable key ({error}): give a PEM key", key.display())
            })?;
            builder.with_client_auth_cert(chain, secret).map_err(|error| {
                format!("the client certificate {} and its key do not go together: {error}", cert.display())
            })?
        }
        (None, None) => builder.with_no_client_auth(),
        _ => return Err("mqtt has one of cert_file and key_file: give both, or neither".to_owned()),
    };
    Ok(Arc::new(config))
}

fn roots(settings: &TlsConfig) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let (found, place) = match &settings.ca_file {
        Some(file) => (certificates(file, "mqtt.ca_file")?, format!("mqtt.ca_file {}", file.display())),
        None => (rustls_native_certs::load_native_certs().certs, "the system's certificate store".to_owned()),
    };
    roots.add_parsable_certificates(found);
    if roots.is_empty() {
        return Err(format!(
            "{place} holds no usable certificate authority: install ca-certificates, or give one as mqtt.ca_file"
        ));
    }
    Ok(roots)
}

fn certificates(file: &Path, setting: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let unusable = |error| format!("{setting} {} cannot be read ({error}): give a PEM file", file.display());
    CertificateDer::pem_file_iter(file).and_then(Iterator::collect).map_err(unusable)
}

/// What went wrong in a TLS handshake, for people; `None` where the error is not TLS's.
pub fn explain(error: &(dyn Error + 'static), host: &str) -> Option<String> {
    let error = find(error)?;
    Some(match error {
        rustls::Error::InvalidCertificate(problem) => certificate(problem, host),
        rustls::Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure => {
                "the broker asks for a client certificate: give mqtt.cert_file and mqtt.key_file".to_owned()
            }
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked => {
                format!("the broker refused our client certificate ({alert:?}): give one that it accepts")
            }
            other => format!("the broker ended the TLS handshake ({other:?}): look into the broker's log"),
        },
        rustls::Error::InvalidMessage(_) => {
            "the broker does not speak TLS on this port: give mqtt:// or the TLS port".to_owned()
        }
        other => format!("TLS failed: {other}"),
    })
}

fn certificate(problem: &CertificateError, host: &str) -> String {
    match problem {
        // A bad signature is that of another authority of the same name: a CA that was made anew.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the broker's certificate is not from an authority that is trusted here: give its CA as mqtt.ca_file"
                .to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the broker's certificate has expired: renew it, or set this machine's clock".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the broker's certificate is not valid yet: set this machine's clock".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("the broker's certificate is not for the name {host}: give the name that it was made for")
        }
        other => format!("the broker's certificate was refused: {other}"),
    }
}

/// rustls's own error, which lies inside an `io::Error` that its `source` steps over.
fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Some(found);
        }
        next = error.source();
    }
    None
}
