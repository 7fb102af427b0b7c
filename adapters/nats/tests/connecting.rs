//! How an adapter finds its server, and what it says if it cannot.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair as TlsKey};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tower_channels::adapter::{Adapter, Link, Record, Replaced, Store};
use tower_channels_adapter_tests::engines::NatsConfig as ServerConfig;
use tower_channels_nats::{ConnectError, Nats, NatsConfig};

#[path = "support/mod.rs"]
#[allow(dead_code, unreachable_pub, reason = "each test file needs a part")]
mod support;

use support::{MS, Node};

fn config(address: SocketAddr) -> NatsConfig {
    NatsConfig::new(address.to_string()).app("chat")
}

async fn error(config: NatsConfig) -> ConnectError {
    Nats::connect(config).await.expect_err("not to be used")
}

#[track_caller]
fn assert_contains(error: &ConnectError, texts: &[&str]) {
    let error = error.to_string();
    for text in texts {
        assert!(error.contains(text), "{text} is not in: {error}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let error = error(NatsConfig::new("nats://ann:secret@127.0.0.1:1")).await;
    assert!(matches!(error, ConnectError::Unreachable(_)), "{error:?}");
    assert_contains(&error, &["NATS cannot be reached", "127.0.0.1:1"]);
    assert!(!error.to_string().contains("secret"));
}

#[tokio::test]
async fn what_is_not_nats_is_not_waited_for() {
    for greeting in ["", "HTTP/1.1 400 Bad Request\r\n\r\n"] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(greeting.as_bytes()).await.unwrap();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                    drop(stream);
                });
            }
        });
        let error = error(config(address).connect_timeout(300 * MS)).await;
        assert!(matches!(error, ConnectError::Unreachable(_)), "{error:?}");
        assert_contains(&error, &[&address.to_string()]);
    }
}

#[tokio::test]
async fn an_invalid_configuration_is_not_tried() {
    let error = error(NatsConfig::new("ws://127.0.0.1")).await;
    assert_contains(&error, &["invalid configuration", "url 1"]);
}

#[tokio::test]
async fn one_server_of_several_suffices() {
    let Some(server) = ServerConfig::new().start().await else { return };
    let config = config(server.address()).server("127.0.0.1:1");
    Node::start(1, config).await;
    Node::start(1, NatsConfig::new(format!("127.0.0.1:1,{}", server.address()))).await;
}

#[tokio::test]
async fn a_password_is_needed_where_it_is_asked_for() {
    let Some(server) = ServerConfig::new().user("ann", "p@ss").start().await else { return };
    let address = server.address();
    Node::start(1, config(address).user_and_password("ann", "p@ss")).await;
    Node::start(1, NatsConfig::new(format!("nats://ann:p%40ss@{address}"))).await;
    for wrong in [
        config(address),
        config(address).user_and_password("ann", "other"),
        config(address).token("p@ss"),
        NatsConfig::new(format!("nats://ann:other@{address}")),
        // The first that answers decides.
        config(address).server("127.0.0.1:1"),
    ] {
        let error = error(wrong).await;
        assert!(matches!(error, ConnectError::Unauthorized(_)), "{error:?}");
        assert_contains(&error, &["NATS refuses the credentials", &address.to_string()]);
    }
}

#[tokio::test]
async fn a_token_is_needed_where_it_is_asked_for() {
    let server = ServerConfig::new().line("authorization { token: \"s3cret\" }").start().await;
    let Some(server) = server else { return };
    let address = server.address();
    Node::start(1, config(address).token("s3cret")).await;
    Node::start(1, NatsConfig::new(format!("nats://s3cret@{address}"))).await;
    let error = error(config(address).token("other")).await;
    assert!(matches!(error, ConnectError::Unauthorized(_)), "{error:?}");
}

#[tokio::test]
async fn all_subjects_of_the_application_must_be_permitted() {
    let denied = [
        ("publish", "tc.chat.all"),
        ("publish", "tc.chat.t.*"),
        ("publish", "tc.chat.n.*"),
        ("publish", "tc.chat.m.*"),
        ("subscribe", "tc.chat.all"),
        ("subscribe", "tc.chat.t.*"),
        ("subscribe", "tc.chat.n.*"),
        ("subscribe", "tc.chat.m.*"),
    ];
    let users = denied.iter().enumerate().map(|(number, (what, subject))| {
        let other = if *what == "publish" { "subscribe" } else { "publish" };
        format!(
            "{{ user: u{number}, password: p, permissions: {{
                {what}: {{ allow: [\"tc.chat.>\"], deny: [\"{subject}\"] }}, {other}: [\"tc.chat.>\"]
            }} }}"
        )
    });
    let all = "{ user: all, password: p, permissions: { publish: \"tc.chat.>\", subscribe: \"tc.chat.>\" } }";
    let users: Vec<_> = users.chain([all.to_owned()]).collect();
    let line = format!("authorization {{ users: [{}] }}", users.join(", "));
    let Some(server) = ServerConfig::new().line(&line).start().await else { return };
    let address = server.address();
    Node::start(1, config(address).user_and_password("all", "p")).await;
    for (number, (what, subject)) in denied.iter().enumerate() {
        let error = error(config(address).user_and_password(format!("u{number}"), "p")).await;
        assert!(matches!(error, ConnectError::Forbidden { .. }), "{what} {subject}: {error:?}");
        let subject = subject.trim_end_matches('*');
        assert_contains(
            &error,
            &["must be permitted", "`tc.chat.>`", "Permissions Violation", subject],
        );
    }
}

/// Waits until the records of a node can be used.
async fn until_kept(store: &dyn Store) {
    let kept = async {
        while store.read("k").await.is_err() {
            tokio::time::sleep(10 * MS).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), kept).await.expect("a bucket");
}

#[tokio::test]
async fn the_documented_permissions_are_enough_for_records() {
    let publish = [
        "tc.chat.>",
        "$KV.tc-chat.>",
        "$JS.API.STREAM.INFO.KV_tc-chat",
        "$JS.API.STREAM.CREATE.KV_tc-chat",
        "$JS.API.DIRECT.GET.KV_tc-chat.>",
    ];
    let permissions = format!("permissions: {{ publish: {publish:?}, subscribe: \"tc.chat.>\" }}");
    let user = format!("authorization {{ users: [{{ user: chat, password: p, {permissions} }}] }}");
    let Some(server) = ServerConfig::new().jetstream().line(&user).start().await else { return };
    let node = Node::start(1, config(server.address()).user_and_password("chat", "p")).await;
    let store = node.nats.store().expect("it has one");
    until_kept(store).await;
    let ttl = Duration::from_secs(60);
    let put = store.replace("k", None, Some("v".into()), ttl).await;
    let Ok(Replaced::Yes(revision)) = put else { panic!("{put:?}") };
    assert_eq!(store.read("k").await, Ok(Some(Record { value: "v".into(), revision })));
    let removed = store.replace("k", Some(revision), None, ttl).await;
    assert!(matches!(removed, Ok(Replaced::Yes(_))), "{removed:?}");
    node.is_told(&[Link::Up]).await;
}

#[tokio::test]
async fn without_jetstream_or_the_permission_for_it_all_but_records_works() {
    let user = "authorization { users: [{ user: chat, password: p, \
                permissions: { publish: \"tc.chat.>\", subscribe: \"tc.chat.>\" } }] }";
    let without = ServerConfig::new();
    let forbidden = ServerConfig::new().jetstream().line(user);
    for server in [without, forbidden] {
        let Some(server) = server.start().await else { return };
        let node = Node::start(1, config(server.address()).user_and_password("chat", "p")).await;
        let store = node.nats.store().expect("it is there");
        for number in 0..20 {
            let error = store.read("k").await.expect_err("no records").to_string();
            assert!(error.contains("JetStream"), "{error}");
            node.topic("room:1", format!("{number}"));
            node.hears(format!("{number}")).await;
            tokio::time::sleep(20 * MS).await;
        }
        node.is_told(&[Link::Up]).await;
    }
}

#[tokio::test]
async fn a_bucket_that_is_deleted_is_created_again() {
    let Some(server) = ServerConfig::new().jetstream().start().await else { return };
    let node = Node::start(1, config(server.address())).await;
    let store = node.nats.store().expect("it has one");
    until_kept(store).await;
    let ttl = Duration::from_secs(60);
    let put = store.replace("k", None, Some("v".into()), ttl).await;
    let Ok(Replaced::Yes(first)) = put else { panic!("{put:?}") };
    let client = async_nats::connect(server.address().to_string()).await.expect("connects");
    let jetstream = async_nats::jetstream::new(client);
    jetstream.delete_stream("KV_tc-chat").await.expect("it is there");
    assert!(store.read("k").await.is_err());
    until_kept(store).await;
    assert_eq!(store.read("k").await, Ok(None));
    let put = store.replace("k", None, Some("v".into()), ttl).await;
    let Ok(Replaced::Yes(second)) = put else { panic!("{put:?}") };
    assert!(second.0 > first.0);
}

#[tokio::test]
async fn the_largest_frame_is_what_the_server_accepts() {
    let Some(server) = ServerConfig::new().line("max_payload: 5000").start().await else { return };
    let node = Node::start(1, config(server.address())).await;
    assert_eq!(node.nats.limits().max_frame, 5000);
    node.topic("room:1", vec![1; 5001]);
    node.topic("room:1", vec![2; 5000]);
    node.hears(vec![2; 5000]).await;
    assert_eq!(*node.inbox.lost.lock(), [vec![1; 5001]]);
    assert_eq!(node.inbox.heard.lock().len(), 1);
}

/// A folder that is removed with its files.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("tower-channels-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, content: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An authority, and certificates for a server on loopback and for a client.
fn certificates(folder: &Folder) -> [String; 5] {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, TlsKey::generate().unwrap()).unwrap();
    let certificate = |names: &[&str]| {
        let key = TlsKey::generate().unwrap();
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &ca).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    let (server, server_key) = certificate(&["127.0.0.1", "localhost"]);
    let (client, client_key) = certificate(&["ann"]);
    [
        folder.write("ca.pem", &ca.pem()),
        folder.write("server.pem", &server),
        folder.write("server.key", &server_key),
        folder.write("client.pem", &client),
        folder.write("client.key", &client_key),
    ]
}

#[tokio::test]
async fn tls_is_used_where_it_is_asked_for() {
    let folder = Folder::new("tls");
    let [ca, certificate, key, ..] = certificates(&folder);
    let tls = format!("tls {{ cert_file: {certificate:?}, key_file: {key:?} }}");
    let Some(server) = ServerConfig::new().line(&tls).start().await else { return };
    let address = server.address();
    for url in [format!("{address}"), format!("tls://{address}")] {
        let node = Node::start(1, NatsConfig::new(url).root_certificates_file(&ca)).await;
        node.topic("room:1", "over TLS");
        node.hears("over TLS").await;
    }
    let error = error(config(address)).await;
    assert!(matches!(error, ConnectError::Unreachable(_)), "{error:?}");
    assert_contains(&error, &["certificate"]);
    let error = self::error(config(address).root_certificates_file("/missing.pem")).await;
    assert!(matches!(error, ConnectError::Config(_)), "{error:?}");
}

#[tokio::test]
async fn tls_is_not_given_up_for_a_server_that_has_none() {
    let Some(server) = ServerConfig::new().start().await else { return };
    let address = server.address();
    for config in [NatsConfig::new(format!("tls://{address}")), config(address).require_tls(true)] {
        let error = error(config).await;
        assert!(matches!(error, ConnectError::Unreachable(_)), "{error:?}");
    }
}

#[tokio::test]
async fn a_server_may_ask_for_a_certificate_and_for_tls_first() {
    let folder = Folder::new("mtls");
    let [ca, certificate, key, own_certificate, own_key] = certificates(&folder);
    // `auto`: for a moment the server waits for a handshake, and then it says the first word, which is what the
    // launcher waits for.
    let tls = format!(
        "tls {{ cert_file: {certificate:?}, key_file: {key:?}, ca_file: {ca:?}, verify: true, handshake_first: auto }}"
    );
    let Some(server) = ServerConfig::new().line(&tls).start().await else { return };
    let config = config(server.address()).root_certificates_file(&ca).tls_first(true);
    Node::start(1, config.clone().client_certificate_files(own_certificate, own_key)).await;
    let error = error(config).await;
    assert!(matches!(error, ConnectError::Unreachable(_)), "{error:?}");
}

/// A JSON Web Token as NATS uses them.
fn jwt(issuer: &KeyPair, name: &str, subject: &KeyPair, claims: &str) -> String {
    let header = r#"{"typ":"JWT","alg":"ed25519-nkey"}"#;
    let (issuer_key, subject) = (issuer.public_key(), subject.public_key());
    let claims = format!(
        r#"{{"jti":"{name}","iat":1700000000,"iss":"{issuer_key}","name":"{name}","sub":"{subject}","nats":{{{claims},"version":2}}}}"#
    );
    let text = [header, &claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    let signature = issuer.sign(text.as_bytes()).unwrap();
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[tokio::test]
async fn credentials_are_a_token_and_a_key() {
    let (operator, account, user) =
        (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_user());
    let operator_jwt = jwt(&operator, "O", &operator, r#""type":"operator""#);
    let unlimited = r#""type":"account","limits":{"subs":-1,"data":-1,"payload":-1,"imports":-1,"exports":-1,"wildcards":true,"conn":-1,"leaf":-1}"#;
    let account_jwt = jwt(&operator, "A", &account, unlimited);
    let user_jwt = jwt(
        &account,
        "U",
        &user,
        r#""type":"user","subs":-1,"data":-1,"payload":-1,"pub":{},"sub":{}"#,
    );
    let credentials = |key: &KeyPair| {
        let seed = key.seed().unwrap();
        format!(
            "-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    };
    let server = ServerConfig::new()
        .line(&format!("operator: {operator_jwt}"))
        .line("resolver: MEMORY")
        .line(&format!("resolver_preload: {{ {}: {account_jwt} }}", account.public_key()))
        .start()
        .await;
    let Some(server) = server else { return };
    let address = server.address();
    Node::start(1, config(address).credentials(credentials(&user))).await;

    let folder = Folder::new("credentials");
    let path = folder.write("user.creds", &credentials(&user));
    Node::start(1, config(address).credentials_file(&path)).await;

    for wrong in [config(address), config(address).credentials(credentials(&KeyPair::new_user()))] {
        let error = error(wrong).await;
        assert!(matches!(error, ConnectError::Unauthorized(_)), "{error:?}");
    }
    for missing in
        [config(address).credentials("nothing"), config(address).credentials_file("/missing")]
    {
        let error = error(missing).await;
        assert!(matches!(error, ConnectError::Config(_)), "{error:?}");
    }
}
