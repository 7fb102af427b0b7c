//! A server that speaks TLS.

use std::fs;
use std::net::TcpListener;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tower_channels::adapter::Channel;
use tower_channels_adapter_tests::engines::{Kind, RedisConfig as Server};
use tower_channels_redis::{ConnectError, Redis, RedisConfig};

use crate::node::Node;

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

#[tokio::test]
async fn a_server_with_a_certificate_is_used_if_it_is_trusted() {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = pem("CERTIFICATE", certified.cert.der());
    let folder = std::env::temp_dir().join(format!("tower-channels-tls-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let cert = file("cert.pem", &certificate);
    let key = file("key.pem", &pem("PRIVATE KEY", &certified.signing_key.serialize_der()));
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = Server::new(Kind::Redis)
        .password("secret")
        .line(&format!("tls-port {port}"))
        .line(&format!("tls-cert-file {cert}"))
        .line(&format!("tls-key-file {key}"))
        .line(&format!("tls-ca-cert-file {cert}"))
        .line("tls-auth-clients no");
    let Some(_server) = server.start().await else { return };
    fs::remove_dir_all(&folder).unwrap();

    let config = |host: &str| RedisConfig::new(format!("rediss://:secret@{host}:{port}"));
    let untrusted = Redis::connect(config("localhost")).await.expect_err("refused");
    assert!(matches!(untrusted, ConnectError::Unreachable(_)), "{untrusted}");
    let trusted = |host: &str| config(host).root_certificates(certificate.clone());
    let another = Redis::connect(trusted("127.0.0.1")).await.expect_err("refused");
    assert!(matches!(another, ConnectError::Unreachable(_)), "{another}");

    let mut a = Node::start(1, trusted("localhost")).await;
    let b = Node::start(2, trusted("localhost")).await;
    b.publish(Channel::Topic("t"), vec![b'x'; 300_000]);
    assert_eq!(a.frame().await.len(), 300_000);
}
