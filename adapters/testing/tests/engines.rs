//! The launcher and the proxy.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tower_channels_adapter_tests::engines::{Kind, NatsConfig, RedisConfig};
use tower_channels_adapter_tests::proxy::Proxy;

const KINDS: [Kind; 2] = [Kind::Redis, Kind::Valkey];
const SOON: Duration = Duration::from_secs(10);

/// What a Redis behind this address answers to a ping, unless it takes longer than this.
async fn ping(stream: &mut TcpStream, patience: Duration) -> Option<String> {
    stream.write_all(b"PING\r\n").await.ok()?;
    let mut answer = [0; 100];
    let length = timeout(patience, stream.read(&mut answer)).await.ok()?.ok()?;
    Some(String::from_utf8_lossy(&answer[..length]).into_owned())
}

/// Waits until nobody is connected: a server may notice late that somebody has gone.
async fn idle(connections: impl AsyncFn() -> usize) {
    let idle = async { while connections().await > 0 {} };
    timeout(SOON, idle).await.expect("nobody is connected");
}

#[tokio::test]
async fn a_redis_is_killed_and_restarted_on_its_port() {
    for kind in KINDS {
        let Some(mut redis) = RedisConfig::new(kind).start().await else { return };
        idle(async || redis.connections().await).await;
        redis.ask(&["SET", "a", "b"]).await;
        redis.kill();
        assert!(TcpStream::connect(redis.address()).await.is_err());
        redis.restart().await;
        assert_eq!(redis.ask(&["GET", "a"]).await, "");
    }
}

#[tokio::test]
async fn a_redis_stands_still_while_it_is_paused() {
    let Some(mut redis) = RedisConfig::new(Kind::Redis).start().await else { return };
    let mut stream = TcpStream::connect(redis.address()).await.unwrap();
    redis.pause();
    assert_eq!(ping(&mut stream, Duration::from_millis(50)).await, None);
    redis.resume();
    // The first ping may be answered, too.
    assert!(ping(&mut stream, SOON).await.unwrap().starts_with("+PONG\r\n"));
}

#[tokio::test]
async fn a_redis_knows_its_users() {
    let config = RedisConfig::new(Kind::Redis).password("secret");
    let config = config.user("chat", "word", "resetchannels &tc:* +@pubsub");
    let Some(redis) = config.start().await else { return };
    assert!(redis.ask(&["ACL", "LIST"]).await.contains("user chat on"));
    let mut stream = TcpStream::connect(redis.address()).await.unwrap();
    assert!(ping(&mut stream, SOON).await.unwrap().starts_with("-NOAUTH"));
}

#[tokio::test]
async fn three_redis_are_a_cluster() {
    for kind in KINDS {
        let Some(cluster) = RedisConfig::new(kind).start_cluster().await else { return };
        let slots = cluster[2].ask(&["CLUSTER", "SLOTS"]).await;
        for server in &cluster {
            assert!(slots.contains(&server.address().port().to_string()), "{slots}");
        }
    }
}

#[tokio::test]
async fn three_redis_lose_nothing_while_one_of_them_stands_still() {
    let Some(mut cluster) = RedisConfig::new(Kind::Redis).start_cluster().await else { return };
    let mut stream = BufReader::new(TcpStream::connect(cluster[2].address()).await.unwrap());
    stream.write_all(b"SUBSCRIBE room\r\nPING\r\n").await.unwrap();
    let mut lines = stream.lines();
    while lines.next_line().await.unwrap().expect("a line") != "pong" {}
    cluster[2].pause();
    let until = Instant::now() + Duration::from_secs(4);
    let mut sent = Vec::new();
    while Instant::now() < until {
        sent.push(format!("message {}", sent.len()));
        cluster[0].ask(&["PUBLISH", "room", sent.last().expect("one")]).await;
    }
    cluster[2].resume();
    let mut heard = Vec::new();
    while heard.last() != sent.last() {
        let line = timeout(SOON, lines.next_line()).await.expect("all in time").unwrap();
        heard.extend(line.filter(|line| line.starts_with("message ")));
    }
    assert_eq!(heard, sent);
}

#[tokio::test]
async fn a_sentinel_promotes_the_replica() {
    let config = RedisConfig::new(Kind::Redis).password("secret");
    let Some(mut all) = config.start_sentinel().await else { return };
    all.primary.kill();
    let port = all.replica.address().port().to_string();
    let promoted = timeout(SOON * 3, async {
        while !all
            .sentinel
            .ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"])
            .await
            .contains(&port)
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    promoted.await.expect("a new primary");
}

#[tokio::test]
async fn a_nats_is_killed_and_restarted_on_its_port() {
    let Some(mut nats) = NatsConfig::new().user("chat", "secret").start().await else { return };
    idle(async || nats.connections().await).await;
    nats.kill();
    assert!(TcpStream::connect(nats.address()).await.is_err());
    nats.restart().await;
    nats.pause();
    nats.resume();
    idle(async || nats.connections().await).await;
}

#[tokio::test]
async fn two_nats_are_a_cluster() {
    let Some([first, second]) = NatsConfig::new().start_cluster().await else { return };
    assert_ne!(first.address(), second.address());
}

#[tokio::test]
async fn the_engine_ends_with_its_value() {
    let Some(redis) = RedisConfig::new(Kind::Redis).start().await else { return };
    let address = redis.address();
    drop(redis);
    assert!(TcpStream::connect(address).await.is_err());
}

/// A listener that sends back whatever it receives.
async fn echo() -> Proxy {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    Proxy::new(address).await
}

/// Whether what is sent comes back within this time. `None` if the connection ends.
async fn comes_back(stream: &mut TcpStream, patience: Duration) -> Option<bool> {
    stream.write_all(b"a").await.ok()?;
    match timeout(patience, stream.read_exact(&mut [0])).await {
        Ok(read) => read.ok().map(|_| true),
        Err(_) => Some(false),
    }
}

#[tokio::test]
async fn a_proxy_cuts_connections_and_is_healed() {
    let proxy = echo().await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(comes_back(&mut stream, SOON).await, Some(true));
    proxy.cut();
    assert_eq!(comes_back(&mut stream, SOON).await, None);
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(comes_back(&mut stream, SOON).await, None);
    proxy.heal();
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(comes_back(&mut stream, SOON).await, Some(true));
    proxy.interrupt();
    assert_eq!(comes_back(&mut stream, SOON).await, None);
}

#[tokio::test]
async fn a_proxy_holds_back_what_it_forwards_later() {
    let proxy = echo().await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    proxy.stall();
    assert_eq!(comes_back(&mut stream, Duration::from_millis(50)).await, Some(false));
    let mut another = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(comes_back(&mut another, Duration::from_millis(50)).await, Some(false));
    proxy.heal();
    for stream in [&mut stream, &mut another] {
        timeout(SOON, stream.read_exact(&mut [0])).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_proxy_delays() {
    let proxy = echo().await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    proxy.delay(Duration::from_millis(40));
    let start = Instant::now();
    assert_eq!(comes_back(&mut stream, SOON).await, Some(true));
    assert!(start.elapsed() >= Duration::from_millis(80));
}
