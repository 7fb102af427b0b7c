//! TLS, with rustls.

use redis::{Client, ConnectionInfo, RedisResult, TlsCertificates};
use rustls::crypto::CryptoProvider;

/// Creates the client of a server that speaks TLS.
pub(crate) fn client(info: ConnectionInfo, root_cert: Option<Vec<u8>>) -> RedisResult<Client> {
    // rustls uses the default provider of the process, and panics without one.
    if CryptoProvider::get_default().is_none() {
        // An error says that another one was installed meanwhile.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    match root_cert {
        Some(_) => Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert }),
        None => Client::open(info),
    }
}
