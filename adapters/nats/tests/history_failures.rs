//! What a history in NATS does when its server, its stream or its connection fails.

use std::time::Duration;

use tower_channels::adapter::Since;
use tower_channels_adapter_tests::engines::{NatsConfig as ServerConfig, NatsServer};
use tower_channels_adapter_tests::proxy::Proxy;
use tower_channels_nats::{HistoryConfig, NatsConfig, Storage};

#[path = "support/mod.rs"]
#[allow(dead_code, unreachable_pub, reason = "each test file needs a part")]
mod support;

use support::MS;
use support::history::{Store, numbered, texts};

const STREAM: &str = "tc-channels-history";

async fn server() -> Option<NatsServer> {
    ServerConfig::new().jetstream().start().await
}

fn config(server: &NatsServer) -> NatsConfig {
    NatsConfig::new(server.address().to_string())
        .history(HistoryConfig::new().max_bytes(64 << 20).messages(5000))
}

async fn context(server: &NatsServer) -> async_nats::jetstream::Context {
    let client = async_nats::connect(server.address().to_string()).await.expect("it runs");
    async_nats::jetstream::new(client)
}

#[tokio::test]
async fn a_message_whose_answer_was_lost_counts_once() {
    let Some(server) = server().await else { return };
    let proxy = Proxy::new(server.address()).await;
    let other = Store::up(config(&server)).await;
    let node = Store::up(NatsConfig::new(proxy.address().to_string())).await;
    let head = node.newest("t").await.last;
    let mut expected = Vec::new();
    for round in 0..20_u64 {
        let texts: Vec<_> = (0..50).map(|number| format!("{round} {number}")).collect();
        let told: Vec<_> = texts.iter().map(|text| node.append("t", text)).collect();
        // Some are on their way, some have been answered.
        tokio::time::sleep(Duration::from_micros(200 * round)).await;
        proxy.interrupt();
        for told in told {
            told.await.expect("it is told").expect("it is kept, by the next connection");
        }
        expected.extend(texts);
    }
    let page = node.after("t", head).await;
    assert!(page.is_complete);
    assert_eq!(texts(&page.messages), expected);
    // A node that was never cut off hears the same.
    assert_eq!(other.hears(1000).await, page.messages);
}

#[tokio::test]
async fn a_node_that_was_cut_off_is_told_and_can_read_what_it_has_missed() {
    let Some(server) = server().await else { return };
    let proxy = Proxy::new(server.address()).await;
    let other = Store::up(config(&server)).await;
    let node = Store::up(NatsConfig::new(proxy.address().to_string())).await;
    let first = other.keep("t", "first").await;
    assert_eq!(node.hears(1).await[0].position, first);
    proxy.cut();
    other.keep("t", "missed").await;
    let missed = other.keep("t", "missed, too").await;
    // It does not keep a client waiting.
    support::until("it to be cut off", || node.inbox.heard.lock().len() == 1).await;
    proxy.heal();
    node.is_interrupted(2).await;
    let last = other.keep("t", "last").await;
    let heard = node.hears(2).await;
    assert_eq!((heard[1].position, heard[1].previous), (last, missed.number));
    let page = node.after("t", first).await;
    assert_eq!(texts(&page.messages), ["missed", "missed, too", "last"]);
    assert!(page.is_complete);
}

#[tokio::test]
async fn listening_does_not_wait_for_a_server_that_is_away() {
    let Some(server) = server().await else { return };
    let proxy = Proxy::new(server.address()).await;
    let node = Store::up(NatsConfig::new(proxy.address().to_string())).await;
    proxy.cut();
    for _ in 0..100 {
        // It may take until the connection is known to be lost.
        node.listen("other").await;
        tokio::time::sleep(MS).await;
    }
    let refused = node.append("t", "in vain").await.expect("it is told");
    assert!(refused.unwrap_err().to_string().contains("five seconds"));
    assert!(node.try_read("t", Since::Newest).await.is_err());
    proxy.heal();
    node.is_interrupted(2).await;
    let position = node.keep_at_last("other", "back").await;
    support::until("the other topic", || {
        node.inbox.heard.lock().last().is_some_and(|kept| kept.position == position)
    })
    .await;
}

#[tokio::test]
async fn everything_that_was_acknowledged_outlives_a_server_that_is_killed() {
    let Some(mut server) = server().await else { return };
    let node = Store::up(config(&server)).await;
    let head = node.newest("t").await.last;
    let mut acknowledged = Vec::new();
    for round in 0..5_usize {
        let told: Vec<_> = (0..200)
            .map(|number| format!("{round} {number}"))
            .map(|text| (node.append("t", &text), text))
            .collect();
        tokio::time::sleep(MS * 3 * round as u32).await;
        server.kill();
        server.restart().await;
        for (told, text) in told {
            if let Ok(position) = told.await.expect("it is told") {
                acknowledged.push((position, text));
            }
        }
    }
    assert!(!acknowledged.is_empty());
    let page = node.after("t", head).await;
    assert!(page.is_complete);
    let mut found = page.messages.iter();
    for (position, text) in acknowledged {
        // In the same order; between them may be some of which it was not known.
        let kept = found.find(|kept| kept.content == text).expect("it is there");
        assert_eq!(kept.position, position);
    }
    let mut all = texts(&page.messages);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), page.messages.len(), "one is there twice");
}

#[tokio::test]
async fn a_stream_that_is_removed_is_created_anew_with_another_epoch() {
    let Some(server) = server().await else { return };
    let [one, other] = [Store::up(config(&server)).await, Store::up(config(&server)).await];
    let before = one.keep("t", "before").await;
    context(&server).await.delete_stream(STREAM).await.expect("it was there");
    let after = one.keep_at_last("t", "after").await;
    one.is_interrupted(2).await;
    other.is_interrupted(2).await;
    let after_all = other.keep_at_last("t", "after all").await;
    for node in [&one, &other] {
        let page = node.after("t", before).await;
        assert!(!page.is_complete);
        assert_ne!(page.last.epoch, before.epoch);
        assert!(page.last.number > before.number);
    }
    assert_eq!(after_all.epoch, other.newest("t").await.last.epoch);
    assert!(
        texts(&other.newest("t").await.messages).ends_with(&["after".into(), "after all".into()])
    );
    assert!(after.number < after_all.number);
}

#[tokio::test]
async fn what_was_purged_is_a_gap() {
    let Some(server) = server().await else { return };
    let node = Store::up(config(&server)).await;
    let stream = context(&server).await.get_stream(STREAM).await.expect("it is there");
    let purges: [&str; 2] = ["tc.channels.h.*.t", "tc.channels.h.>"];
    for purged in purges {
        let quiet = node.newest("t").await.last;
        let mut positions = vec![quiet];
        for text in numbered(3) {
            positions.push(node.keep("t", text).await);
        }
        stream.purge().filter(purged).await.expect("it is purged");
        for (count, position) in positions.iter().enumerate() {
            let page = node.after("t", *position).await;
            assert_eq!((page.messages.len(), page.is_complete), (0, false), "{count} of {purged}");
        }
        let head = node.newest("t").await.last;
        node.keep("t", "later").await;
        let page = node.after("t", head).await;
        assert_eq!((texts(&page.messages), page.is_complete), (vec!["later".into()], true));
        assert!(!node.after("t", positions[3]).await.is_complete);
    }
}

#[tokio::test]
async fn an_older_copy_of_the_files_begins_another_epoch() {
    let Some(mut server) = server().await else { return };
    let node = Store::up(config(&server)).await;
    let kept = node.keep("t", "kept").await;
    server.kill();
    server.save();
    server.restart().await;
    let mut lost = Vec::new();
    for text in numbered(10) {
        lost.push(node.keep_at_last("t", &text).await);
    }
    server.kill();
    server.restore();
    server.restart().await;
    support::until_async("another epoch", async || node.newest("t").await.last.epoch != kept.epoch)
        .await;
    let page = node.newest("t").await;
    assert_ne!(page.last.epoch, kept.epoch);
    for position in lost.into_iter().chain([kept]) {
        assert!(!node.after("t", position).await.is_complete);
    }
    let head = node.newest("t").await.last;
    let new = node.keep_at_last("t", "new").await;
    assert_eq!(new.epoch, head.epoch);
    assert_eq!(texts(&node.after("t", head).await.messages), ["new"]);
}

#[tokio::test]
async fn the_oldest_messages_are_a_gap_when_all_topics_take_too_much() {
    let Some(server) = server().await else { return };
    let history = HistoryConfig::new().storage(Storage::Memory).max_bytes(1 << 20);
    let node = Store::up(NatsConfig::new(server.address().to_string()).history(history)).await;
    let quiet = node.keep("quiet", "first").await;
    let large = "x".repeat(60_000);
    let mut positions = Vec::new();
    for number in 0..40 {
        positions.push(node.keep(&format!("room:{}", number % 4), &large).await);
    }
    let page = node.after("quiet", quiet).await;
    assert_eq!((page.messages.len(), page.is_complete), (0, false));
    assert!(!node.after("room:0", positions[0]).await.is_complete);
    let page = node.after("room:0", positions[32]).await;
    assert_eq!((page.messages.len(), page.is_complete), (1, true));
}

#[tokio::test]
async fn a_topic_that_has_more_than_the_stream_keeps_has_a_gap() {
    let Some(server) = server().await else { return };
    let history = HistoryConfig::new().max_bytes(64 << 20).messages(10);
    let node = Store::up(NatsConfig::new(server.address().to_string()).history(history)).await;
    let mut positions = Vec::new();
    for text in numbered(100) {
        positions.push(node.keep("t", text).await);
    }
    let page = node.newest("t").await;
    assert!((10..=12).contains(&page.messages.len()));
    let first = page.messages[0].clone();
    assert_eq!(first.previous, positions[99 - page.messages.len()].number);
    assert!(!node.after("t", positions[80]).await.is_complete);
    assert!(node.after("t", first.position).await.is_complete);
    let page = node.read("t", Since::Before(first.position)).await;
    assert_eq!((page.messages.len(), page.is_complete), (0, false));
}

#[tokio::test]
async fn thousands_of_messages_among_others_are_read_in_pages_of_any_size() {
    let Some(server) = server().await else { return };
    let node = Store::up(config(&server)).await;
    let head = node.newest("t").await.last;
    let mut positions = Vec::new();
    // A few at a time: however slow the machine.
    for numbers in (0..900).collect::<Vec<_>>().chunks(50) {
        let told: Vec<_> = numbers
            .iter()
            .map(|number| {
                drop(node.append(&format!("other:{}", number % 7), "x"));
                node.append("t", number)
            })
            .collect();
        for told in told {
            positions.push(told.await.expect("it is told").expect("it is kept"));
        }
    }
    let all = node.after("t", head).await;
    assert!(all.is_complete);
    assert_eq!(texts(&all.messages), numbered(900));
    assert_eq!(node.newest("t").await.messages, all.messages);
    let before = node.read("t", Since::Before(positions[600])).await;
    assert_eq!(before.messages, all.messages[..600]);
    assert_eq!(node.hears(900).await, all.messages);
}

#[tokio::test]
async fn a_server_without_jetstream_is_named_as_the_reason() {
    let Some(server) = ServerConfig::new().start().await else { return };
    let node = Store::start(config(&server)).await;
    support::until_async("a reason", async || {
        node.try_read("t", Since::Newest)
            .await
            .is_err_and(|it| it.to_string().contains("JetStream"))
    })
    .await;
    assert!(node.append("t", "in vain").await.expect("it is told").is_err());
}

#[tokio::test]
async fn a_user_without_permission_is_named_as_the_reason() {
    let permissions = "authorization { users: [{ user: ann, password: secret, \
        permissions: { publish: \"tc.channels.>\", subscribe: \"tc.channels.>\" } }] }";
    let server = ServerConfig::new().jetstream().line(permissions).start().await;
    let Some(server) = server else { return };
    let node = Store::start(config(&server).user_and_password("ann", "secret")).await;
    support::until_async("a reason", async || {
        node.try_read("t", Since::Newest)
            .await
            .is_err_and(|it| it.to_string().contains("$JS.API.STREAM.INFO.tc-channels-history"))
    })
    .await;
}

#[tokio::test]
async fn the_permissions_that_are_documented_suffice() {
    let calls = ["INFO", "CREATE", "UPDATE", "MSG.GET"]
        .map(|call| format!("$JS.API.STREAM.{call}.{STREAM}"));
    let others = ["tc.channels.>".to_owned(), format!("$JS.API.DIRECT.GET.{STREAM}")];
    let publish = [&calls[..], &others].concat();
    let permissions = format!(
        "authorization {{ users: [{{ user: ann, password: secret, \
         permissions: {{ publish: {publish:?}, subscribe: \"tc.channels.>\" }} }}] }}"
    );
    let server = ServerConfig::new().jetstream().line(&permissions).start().await;
    let Some(server) = server else { return };
    let node = Store::up(config(&server).user_and_password("ann", "secret")).await;
    let head = node.newest("t").await.last;
    node.keep("t", "1").await;
    assert_eq!(texts(&node.after("t", head).await.messages), ["1"]);
    assert_eq!(texts(&node.hears(1).await), ["1"]);
}

#[tokio::test]
async fn what_one_node_has_kept_another_reads_at_once_from_any_replica() {
    let Some(servers) = ServerConfig::new().jetstream().start_cluster::<2>().await else { return };
    let config = |server: &NatsServer| {
        let history = HistoryConfig::new().max_bytes(64 << 20).replicas(2);
        NatsConfig::new(server.address().to_string())
            .history(history)
            .interest_propagation(Duration::from_millis(100))
    };
    let [one, other] = [Store::up(config(&servers[0])).await, Store::up(config(&servers[1])).await];
    let mut last = one.newest("t").await.last;
    for text in numbered(200) {
        let position = one.keep("t", &text).await;
        let page = other.after("t", last).await;
        assert_eq!((texts(&page.messages), page.is_complete), (vec![text], true));
        assert_eq!(page.last, position);
        last = position;
    }
    assert_eq!(texts(&other.hears(200).await), numbered(200));
}

#[tokio::test]
async fn of_three_replicas_any_may_be_killed_and_nothing_that_was_acknowledged_is_lost() {
    const EACH: usize = 100;
    let Some(mut servers) = ServerConfig::new().jetstream().start_cluster::<3>().await else {
        return;
    };
    let addresses = servers.each_ref().map(|server| server.address().to_string());
    // Each prefers another one.
    let config = |first: usize| {
        let others = (1..3).map(|step| &addresses[(first + step) % 3]);
        let history = HistoryConfig::new().max_bytes(64 << 20).replicas(3);
        let config = NatsConfig::new(&addresses[first]).history(history);
        let config = config.interest_propagation(Duration::from_millis(100));
        others.fold(config, NatsConfig::server)
    };
    let [one, other] = [Store::up(config(0)).await, Store::up(config(1)).await];
    let head = one.newest("t").await.last;
    let mut acknowledged = Vec::new();
    // One of them leads the stream.
    for (killed, server) in servers.iter_mut().enumerate() {
        let told: Vec<_> = (0..EACH)
            .map(|number| format!("{killed} {number}"))
            .map(|text| (one.append("t", &text), text))
            .collect();
        tokio::time::sleep(3 * MS).await;
        server.kill();
        for (told, text) in told {
            if let Ok(position) = told.await.expect("it is told") {
                acknowledged.push((position, text));
            }
        }
        // Two of them go on.
        let text = format!("{killed} alone");
        acknowledged.push((one.keep_at_last("t", &text).await, text));
        server.restart().await;
        support::until_async("three of them", async || {
            let stream = context(server).await.get_stream(STREAM).await;
            let cluster = stream.ok().and_then(|it| it.cached_info().cluster.clone());
            cluster.is_some_and(|it| {
                it.leader.is_some() && it.replicas.iter().all(|it| it.current && !it.offline)
            })
        })
        .await;
    }
    for node in [&one, &other] {
        let page = node.after("t", head).await;
        assert!(page.is_complete);
        let mut found = page.messages.iter();
        for (position, text) in &acknowledged {
            let kept = found.find(|kept| kept.content == *text).expect("it is there, in its place");
            assert_eq!((kept.position, position.epoch), (*position, head.epoch));
        }
        let mut all = texts(&page.messages);
        all.sort();
        all.dedup();
        assert_eq!(all.len(), page.messages.len(), "one is there twice");
        // What was heard is in that order, and says what is missing.
        let heard = node.inbox.heard.lock().clone();
        let mut last = head.number;
        for kept in &heard {
            assert!(kept.position.number > last && kept.previous >= last, "{kept:?} after {last}");
            last = kept.position.number;
        }
    }
    eprintln!("{} of {} were acknowledged", acknowledged.len(), 3 * (EACH + 1));
}
