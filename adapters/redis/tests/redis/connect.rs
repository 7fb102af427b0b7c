//! What `connect` refuses, and in which words.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tower_channels::adapter::{Adapter, Channel, Reached, Record, Replaced};
use tower_channels_adapter_tests::engines::{Kind, RedisConfig as Server};
use tower_channels_redis::{ConnectError, Redis, RedisConfig};

use crate::node::{Node, config, frames};

async fn refused(config: RedisConfig) -> ConnectError {
    Redis::connect(config).await.expect_err("refused")
}

#[tokio::test]
async fn an_invalid_configuration_is_refused_before_anything_is_tried() {
    for config in [
        RedisConfig::new("redis://127.0.0.1:1").app("a b"),
        RedisConfig::new("http://127.0.0.1:1"),
        RedisConfig::new("redis://127.0.0.1:none"),
    ] {
        let error = refused(config).await;
        assert!(matches!(error, ConnectError::Config(_)), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_cannot_be_reached() {
    let error = refused(RedisConfig::new("redis://127.0.0.1:1")).await;
    assert!(matches!(error, ConnectError::Unreachable(_)), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn a_server_that_does_not_answer_cannot_be_reached() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = config(silent.local_addr().unwrap()).connect_timeout(Duration::from_millis(50));
    let error = refused(config).await;
    assert!(matches!(error, ConnectError::Unreachable(_)), "{error}");
}

#[tokio::test]
async fn a_server_without_resp3_is_too_old() {
    let old = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = old.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = old.accept().await.unwrap();
        let mut buffer = [0; 1024];
        // As Redis 5 answers HELLO, and CLIENT SETINFO twice.
        while stream.read(&mut buffer).await.unwrap_or(0) > 0 {
            let answer = "-ERR unknown command `HELLO`, with args beginning with: `3`, \r\n";
            stream.write_all(answer.repeat(3).as_bytes()).await.unwrap();
        }
    });
    let error = refused(config(address)).await;
    assert!(matches!(error, ConnectError::Unsupported(_)), "{error}");
    assert!(error.to_string().contains("version 6"), "{error}");
}

#[tokio::test]
async fn a_wrong_password_and_none_are_refused_in_words() {
    for kind in [Kind::Redis, Kind::Valkey] {
        let Some(server) = Server::new(kind).password("right").start().await else { continue };
        let address = server.address();
        for credentials in [":wrong@", "nobody:right@", ""] {
            let error = refused(RedisConfig::new(format!("redis://{credentials}{address}"))).await;
            assert!(matches!(error, ConnectError::Unauthorized(_)), "{credentials}: {error}");
        }
        let right = RedisConfig::new(format!("redis://:right@{address}"));
        Redis::connect(right).await.expect("connects");
    }
}

/// The rules of the documentation.
const COMMANDS: &str = "+publish +subscribe +psubscribe +unsubscribe +punsubscribe";
const CHANNELS: &str = "resetchannels &tc:chat:all &tc:chat:n:* &tc:chat:t:*";
const RECORDS: &str = "+eval +evalsha +get +set +del ~tc:{chat}:r:*";

#[tokio::test]
async fn a_user_with_the_documented_rules_is_enough() {
    for kind in [Kind::Redis, Kind::Valkey] {
        let rules = format!("{COMMANDS} {CHANNELS} {RECORDS}");
        let Some(server) = Server::new(kind).user("chat", "secret", &rules).start().await else {
            continue;
        };
        let url = format!("redis://chat:secret@{}", server.address());
        let config = || RedisConfig::new(&url).app("chat");
        let (mut a, b) = (Node::start(1, config()).await, Node::start(2, config()).await);
        a.redis.listen("room:1").await;
        a.redis.hear_all(false).await;
        b.publish(Channel::Topic("room:1"), "topic");
        b.redis.flush().await;
        assert_eq!(b.reach(a.id, "node").await, Reached::Someone);
        assert_eq!(a.heard().await, frames(["topic", "node"]));
        a.redis.ignore("room:1");
        a.redis.hear_all(true).await;
        a.hears_itself().await;
        let store = a.redis.store().expect("it has one");
        let put = store.replace("k", None, Some("v".into()), Duration::from_secs(60)).await;
        let Ok(Replaced::Yes(revision)) = put else { panic!("{put:?}") };
        let record = Record { value: "v".into(), revision };
        assert_eq!(store.read("k").await, Ok(Some(record)));
        let removed = store.replace("k", Some(revision), None, Duration::ZERO).await;
        assert!(matches!(removed, Ok(Replaced::Yes(_))), "{removed:?}");
    }
}

#[tokio::test]
async fn a_missing_permission_is_refused_with_the_command_and_the_channel() {
    const RECORD: &str = "EVAL, EVALSHA, GET, SET and DEL on tc:{chat}:r:*";
    let without = |rules: &str, rule: &str| {
        let rest: Vec<_> = rules.split(' ').filter(|it| *it != rule).collect();
        rest.join(" ")
    };
    let rules = format!("{COMMANDS} {CHANNELS} {RECORDS}");
    let mut server = Server::new(Kind::Redis);
    let missing = [
        ("+publish", "PUBLISH tc:chat:n:"),
        ("+subscribe", "SUBSCRIBE tc:chat:all"),
        ("+psubscribe", "PSUBSCRIBE tc:chat:t:*"),
        ("+unsubscribe", "UNSUBSCRIBE tc:chat:t:"),
        ("+punsubscribe", "PUNSUBSCRIBE tc:chat:t:*"),
        ("&tc:chat:all", "SUBSCRIBE tc:chat:all"),
        ("&tc:chat:n:*", "SUBSCRIBE tc:chat:n:"),
        ("&tc:chat:t:*", "PSUBSCRIBE tc:chat:t:*"),
        ("+eval", RECORD),
        ("+evalsha", RECORD),
        ("+get", RECORD),
        ("+set", RECORD),
        ("+del", RECORD),
        ("~tc:{chat}:r:*", RECORD),
    ];
    for (number, (rule, _)) in missing.iter().enumerate() {
        server = server.user(&format!("user{number}"), "secret", &without(&rules, rule));
    }
    // A pattern within the rule is not enough: it must be the rule.
    let wide = format!("{COMMANDS} resetchannels &tc:chat:* {RECORDS}");
    let Some(server) = server.user("wide", "secret", &wide).start().await else { return };
    let url = |user: &str| format!("redis://{user}:secret@{}", server.address());
    let mut refusals = Vec::new();
    for (number, (_, expected)) in missing.iter().enumerate() {
        refusals.push((format!("user{number}"), *expected));
    }
    refusals.push(("wide".into(), "PSUBSCRIBE tc:chat:t:*"));
    for (user, expected) in refusals {
        let error = refused(RedisConfig::new(url(&user)).app("chat")).await;
        let ConnectError::Forbidden { command, .. } = &error else { panic!("{user}: {error}") };
        assert!(command.starts_with(expected), "{user}: {error}");
        assert!(error.to_string().contains("no permission for"), "{error}");
    }
}

#[tokio::test]
async fn a_replica_is_refused() {
    let Some(primary) = Server::new(Kind::Redis).start().await else { return };
    let line = format!("replicaof 127.0.0.1 {}", primary.address().port());
    let Some(replica) = Server::new(Kind::Redis).line(&line).start().await else { return };
    let error = refused(config(replica.address())).await;
    assert!(matches!(error, ConnectError::Unsupported(_)), "{error}");
    assert!(error.to_string().contains("replica"), "{error}");
}

#[tokio::test]
async fn nodes_do_not_hear_a_connect_that_tries_what_it_may_do() {
    let Some(server) = Server::new(Kind::Redis).start().await else { return };
    let mut node = Node::start(1, config(server.address())).await;
    Redis::connect(config(server.address())).await.expect("connects");
    assert_eq!(node.heard().await, []);
    let two = async { while server.connections().await != 2 {} };
    tokio::time::timeout(Duration::from_secs(5), two).await.expect("its two connections are left");
}
