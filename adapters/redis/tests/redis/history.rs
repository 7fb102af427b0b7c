//! What only a server can do to a history: answers that are lost, servers that are killed, start again with less, have no
//! memory or make room.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tower_channels::adapter::{Adapter, HistoryStore, Keep, Since};
use tower_channels_adapter_tests::engines::{Kind, RedisConfig as Server, RedisServer};
use tower_channels_adapter_tests::proxy::Proxy;
use tower_channels_redis::{Redis, RedisConfig};

use crate::keeper::{KEEP, Keeper, texts, told};
use crate::node::{PATIENCE, config, url};

/// The key with the messages of a topic.
fn key(topic: &str) -> String {
    format!("tc:{{test}}:h:{topic}")
}

async fn until(server: &RedisServer, command: &[&str], answer: &str) {
    let begun = Instant::now();
    while server.ask(command).await != answer {
        assert!(begun.elapsed() < PATIENCE, "{command:?} is not {answer}");
    }
}

#[tokio::test]
async fn nodes_hear_what_others_keep_of_topics_that_they_listen_to() {
    let Some(server) = Server::new(Kind::Redis).start().await else { return };
    let a = Keeper::start(config(server.address()), &["both", "a"]).await;
    let b = Keeper::start(config(server.address()), &["both", "b"]).await;
    let other = Keeper::start(config(server.address()).app("other"), &["both"]).await;
    other.keep("both", "of another application").await;
    for (number, node) in [&a, &b].iter().cycle().take(10).enumerate() {
        node.keep("both", number.to_string()).await;
    }
    a.keep("b", "1").await;
    let last = b.keep("b", "2").await;
    b.hears("b", last).await;
    let last = a.newest("both").await.last;
    a.hears("both", last).await;
    b.hears("both", last).await;
    assert_eq!(a.heard("both"), b.heard("both"));
    assert_eq!(a.heard("both"), a.newest("both").await.messages);
    assert_eq!(texts(&b.heard("b")), ["1", "2"]);
    until(&server, &["PUBSUB", "NUMSUB", "tc:test:h:b"], "tc:test:h:b\n1").await;
    b.store.ignore("b");
    until(&server, &["PUBSUB", "NUMSUB", "tc:test:h:b"], "tc:test:h:b\n0").await;
    b.store.listen("b").await;
    let last = a.keep("b", "3").await;
    b.hears("b", last).await;
}

#[tokio::test]
async fn a_message_whose_answer_is_lost_counts_once() {
    for kind in [Kind::Redis, Kind::Valkey] {
        let Some(server) = Server::new(kind).start().await else { continue };
        let proxy = Proxy::new(server.address()).await;
        let keeper = Keeper::start(config(proxy.address()), &[]).await;
        let mut expected = Vec::new();
        for round in 0..5_usize {
            keeper.keep("t", format!("{round} before")).await;
            // The answer takes as long as the question.
            proxy.delay(Duration::from_millis(200));
            let first = keeper.append("t", format!("{round} first"));
            let second = keeper.append("t", format!("{round} second"));
            // Behind the commands that are on their way, if the two come one after the other.
            let both = (3 * round + 2).to_string();
            let begun = Instant::now();
            while server.ask(&["XLEN", &key("t")]).await < both {
                assert!(begun.elapsed() < PATIENCE, "the server gets none");
            }
            proxy.interrupt();
            proxy.heal();
            let positions = [told(first).await, told(second).await].map(Result::unwrap);
            expected.extend(["before", "first", "second"].map(|it| format!("{round} {it}")));
            let page = keeper.newest("t").await;
            assert_eq!(texts(&page.messages), expected);
            let kept = page.messages[expected.len() - 2..].iter().map(|kept| kept.position);
            assert!(kept.eq(positions));
        }
    }
}

#[tokio::test]
async fn every_message_counts_once_while_the_line_is_cut_again_and_again() {
    let Some(server) = Server::new(Kind::Redis).start().await else { return };
    let proxy = Proxy::new(server.address()).await;
    let cut = Keeper::start(config(proxy.address()), &[]).await;
    let other = Keeper::start(config(server.address()), &["a", "b"]).await;
    let mut waiting = Vec::new();
    for number in 0..1500_usize {
        let (topic, content) = (["a", "b"][number % 2], number.to_string());
        waiting.push((topic, content.clone(), cut.append(topic, content)));
        if number % 3 == 0 {
            other.append(topic, "other");
        }
        if number % 100 == 50 {
            proxy.interrupt();
        }
        if number % 10 == 0 {
            sleep(Duration::from_millis(2)).await;
        }
    }
    let mut kept = Vec::new();
    for (topic, content, answer) in waiting {
        if let Ok(position) = told(answer).await {
            kept.push((topic, content, position));
        }
    }
    assert!(kept.len() > 1000, "{} of 1500", kept.len());
    for topic in ["a", "b"] {
        let page = other.newest(topic).await;
        assert_eq!(other.heard(topic), page.messages, "what is handed over is what is kept");
        let found: Vec<_> = page.messages.iter().filter(|it| it.content != "other").collect();
        let numbers: Vec<usize> =
            texts(&page.messages).iter().filter_map(|text| text.parse().ok()).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
        for (_, content, position) in kept.iter().filter(|(of, ..)| *of == topic) {
            let at = found.iter().filter(|it| it.content == content.as_bytes());
            assert!(at.map(|it| it.position).eq([*position]), "{content}");
        }
    }
}

#[tokio::test]
async fn what_was_sent_on_an_older_connection_is_not_executed_behind_its_repetition() {
    let Some(server) = Server::new(Kind::Redis).start().await else { return };
    let keeper = Keeper::start(config(server.address()), &[]).await;
    keeper.keep("t", "1").await;
    let sender = server.ask(&["KEYS", "tc:{test}:s:*"]).await;
    assert_eq!(server.ask(&["GET", &sender]).await, "1");
    // As if there were a newer connection: this one is refused, and replaced.
    server.ask(&["SET", &sender, "another"]).await;
    keeper.keep("t", "2").await;
    assert_eq!(server.ask(&["GET", &sender]).await, "2");
    assert_eq!(texts(&keeper.newest("t").await.messages), ["1", "2"]);
}

#[tokio::test]
async fn scripts_that_the_server_has_forgotten_are_given_again() {
    let Some(server) = Server::new(Kind::Redis).start().await else { return };
    let keeper = Keeper::start(config(server.address()), &[]).await;
    keeper.keep("t", "1").await;
    server.ask(&["SCRIPT", "FLUSH"]).await;
    assert_eq!(texts(&keeper.newest("t").await.messages), ["1"]);
    server.ask(&["SCRIPT", "FLUSH"]).await;
    keeper.keep("t", "2").await;
    assert_eq!(texts(&keeper.newest("t").await.messages), ["1", "2"]);
}

#[tokio::test]
async fn whoever_waits_is_told_in_time_while_the_server_is_away() {
    let Some(mut server) = Server::new(Kind::Redis).start().await else { return };
    let keeper = Keeper::start(config(server.address()), &[]).await;
    keeper.keep("t", "1").await;
    server.pause();
    for _ in 0..2 {
        let begun = Instant::now();
        let (first, second) = (keeper.append("t", "on its way"), keeper.append("t", "waits"));
        keeper.append_untold("nobody waits", "x");
        let newest = keeper.store.read("t", Since::Newest, 1);
        let (first, second, newest) = tokio::join!(told(first), told(second), newest);
        assert!(first.is_err() && second.is_err() && newest.is_err());
        assert!(begun.elapsed() >= Duration::from_secs(1));
        keeper.eventually("it is lost", || !keeper.lost().is_empty()).await;
    }
    server.resume();
    let begun = Instant::now();
    while keeper.try_keep("t", "2").await.is_err() {
        assert!(begun.elapsed() < PATIENCE);
    }
    let page = keeper.newest("t").await;
    assert_eq!(texts(&page.messages).last().unwrap(), "2");
}

#[tokio::test]
async fn too_much_that_waits_is_refused_at_once() {
    let Some(mut server) = Server::new(Kind::Redis).start().await else { return };
    let keeper = Keeper::start(config(server.address()).max_queue(100_000), &[]).await;
    server.pause();
    let append = || {
        let content = vec![0; 10_000].into();
        let topic = "t".into();
        keeper.store.append(tower_channels::adapter::Append {
            topic,
            content,
            keep: KEEP,
            done: None,
        })
    };
    assert!((0..9).all(|_| append().is_ok()));
    assert!(append().is_err());
    server.resume();
}

#[tokio::test]
async fn a_node_learns_that_it_may_have_missed_something() {
    let Some(server) = Server::new(Kind::Redis).start().await else { return };
    let keeper = Keeper::start(config(server.address()), &["t"]).await;
    for _ in 0..3 {
        let before = keeper.interruptions();
        server.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        keeper.interrupted(before).await;
        let position = keeper.keep("t", "x").await;
        keeper.hears("t", position).await;
    }
}

#[tokio::test]
async fn a_server_that_starts_again_has_lost_something_unless_it_is_said_that_it_does_not() {
    let Some(mut server) =
        Server::new(Kind::Redis).line("appendonly yes").line("appendfsync always").start().await
    else {
        return;
    };
    let plain = Keeper::start(config(server.address()), &[]).await;
    let durable = Keeper::start(config(server.address()).app("durable").durable(), &[]).await;
    let mut positions = Vec::new();
    for keeper in [&plain, &durable] {
        let head = keeper.newest("t").await.last;
        let first = keeper.keep("t", "1").await;
        positions.push([head, first, keeper.keep("t", "2").await]);
    }
    server.kill();
    server.restart().await;
    for (keeper, positions) in [&plain, &durable].into_iter().zip(positions) {
        let page = keeper.newest("t").await;
        assert_eq!(texts(&page.messages), ["1", "2"], "all of it is there");
        assert_eq!(page.last.epoch, positions[0].epoch);
        let third = keeper.keep("t", "3").await;
        for position in positions {
            let is_complete = keeper.after("t", position).await.is_complete;
            assert_eq!(is_complete, std::ptr::eq(keeper, &durable), "after {position}");
        }
        let after = keeper.after("t", page.last).await;
        assert_eq!((texts(&after.messages), after.is_complete), (vec!["3".to_owned()], true));
        assert!(keeper.after("t", third).await.is_complete);
        assert_eq!(after.messages[0].previous, positions[2].number);
    }
}

#[tokio::test]
async fn messages_that_a_server_has_lost_at_its_end_are_a_gap() {
    let Some(mut server) = Server::new(Kind::Redis).start().await else { return };
    let keeper = Keeper::start(config(server.address()), &["t"]).await;
    let early = keeper.keep("t", "saved").await;
    server.ask(&["SAVE"]).await;
    let late = keeper.keep("t", "lost").await;
    let before = keeper.interruptions();
    server.kill();
    server.restart().await;
    keeper.interrupted(before).await;
    for position in [early, late] {
        assert!(!keeper.after("t", position).await.is_complete, "after {position}");
    }
    let page = keeper.newest("t").await;
    assert_eq!(texts(&page.messages), ["saved"]);
    assert!(page.last.number > late.number, "numbers do not come again");
    let next = keeper.keep("t", "next").await;
    for position in [early, late] {
        assert!(!keeper.after("t", position).await.is_complete, "after {position}");
    }
    let after = keeper.after("t", page.last).await;
    assert!(after.is_complete);
    assert_eq!(after.messages[0].position, next);
    let before = keeper.read("t", Since::Before(next)).await;
    assert_eq!((texts(&before.messages), before.is_complete), (vec!["saved".to_owned()], false));
}

#[tokio::test]
async fn a_server_that_forgets_everything_meanwhile_begins_other_epochs() {
    let Some(mut server) = Server::new(Kind::Valkey).start().await else { return };
    let keeper = Keeper::start(config(server.address()), &[]).await;
    let mut old = vec![keeper.newest("t").await.last, keeper.keep("t", "1").await];
    for round in 0..2 {
        if round == 0 {
            server.ask(&["FLUSHALL"]).await;
        } else {
            server.kill();
            server.restart().await;
        }
        let first = keeper.keep("t", "2").await;
        let last = keeper.keep("t", "3").await;
        let page = keeper.after("t", first).await;
        assert_eq!((texts(&page.messages), page.is_complete), (vec!["3".to_owned()], true));
        for position in &old {
            let page = keeper.after("t", *position).await;
            assert_ne!(page.last.epoch, position.epoch);
            assert!(!page.is_complete && page.messages.is_empty());
        }
        old.extend([first, last]);
    }
}

#[tokio::test]
async fn what_a_server_has_evicted_is_a_gap() {
    for policy in ["allkeys-lru", "allkeys-random", "volatile-random"] {
        let server = Server::new(Kind::Redis).line(&format!("maxmemory-policy {policy}"));
        let Some(server) = server.start().await else { return };
        let keeper = Keeper::start(config(server.address()), &[]).await;
        keeper.keep("first", "x").await;
        let used = server.ask(&["INFO", "memory"]).await;
        let used = used.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
        let limit = used.trim().parse::<usize>().unwrap() + (4 << 20);
        server.ask(&["CONFIG", "SET", "maxmemory", &limit.to_string()]).await;
        let topics: Vec<_> = (0..150).map(|number| format!("room:{number}")).collect();
        let mut heads = Vec::new();
        let mut kept = vec![Vec::new(); topics.len()];
        for topic in &topics {
            heads.push(keeper.newest(topic).await.last);
        }
        for round in 0..8 {
            for (topic, kept) in topics.iter().zip(&mut kept) {
                let content = format!("{round:>8000}");
                // A server that is full for a moment refuses, which is known.
                if keeper.try_keep(topic, content.clone()).await.is_ok() {
                    kept.push(content);
                }
            }
        }
        let mut gaps = 0;
        for ((topic, head), kept) in topics.iter().zip(heads).zip(kept) {
            let page = keeper.after(topic, head).await;
            if page.is_complete {
                assert_eq!(texts(&page.messages), kept, "{topic} under {policy}");
            } else {
                gaps += 1;
            }
        }
        assert!(gaps > 0, "nothing was evicted under {policy}");
    }
}

#[tokio::test]
async fn a_server_without_memory_refuses_messages_as_a_whole() {
    for kind in [Kind::Redis, Kind::Valkey] {
        let Some(server) = Server::new(kind).start().await else { continue };
        let keeper = Keeper::start(config(server.address()), &["t", "new"]).await;
        keeper.keep("t", "1").await;
        server.ask(&["CONFIG", "SET", "maxmemory", "1"]).await;
        for topic in ["t", "new"] {
            let error = keeper.try_keep(topic, "refused").await.unwrap_err();
            assert!(error.to_string().contains("OOM"), "{error}");
        }
        assert_eq!(texts(&keeper.newest("t").await.messages), ["1"], "it can be read");
        server.ask(&["CONFIG", "SET", "maxmemory", "0"]).await;
        assert!(keeper.newest("new").await.messages.is_empty());
        let last = keeper.keep("t", "2").await;
        keeper.hears("t", last).await;
        assert_eq!(texts(&keeper.heard("t")), ["1", "2"]);
        assert!(keeper.heard("new").is_empty());
    }
}

#[tokio::test]
async fn a_message_that_is_refused_takes_no_other_with_it() {
    for kind in [Kind::Redis, Kind::Valkey] {
        let Some(server) = Server::new(kind).start().await else { continue };
        let keeper = Keeper::start(config(server.address()), &["good"]).await;
        let head = keeper.newest("good").await.last;
        // Something else has taken its name.
        server.ask(&["SET", &key("bad"), "x"]).await;
        let topics = ["good", "bad", "good", "good", "bad", "good"];
        let waiting: Vec<_> = (0..20)
            .flat_map(|_| topics)
            .map(|topic| (topic, keeper.append(topic, topic)))
            .collect();
        let mut kept = Vec::new();
        for (topic, waiting) in waiting {
            match told(waiting).await {
                Ok(position) if topic == "good" => kept.push(position),
                Err(error) if topic == "bad" => assert!(error.to_string().contains("WRONGTYPE")),
                other => panic!("{topic}: {other:?}"),
            }
        }
        let page = keeper.after("good", head).await;
        assert!(page.is_complete);
        let found: Vec<_> = page.messages.iter().map(|it| it.position).collect();
        assert_eq!(found, kept);
        keeper.hears("good", *kept.last().expect("some")).await;
        assert_eq!(keeper.heard("good"), page.messages);
    }
}

#[tokio::test]
async fn a_failover_is_a_gap_and_the_history_goes_on() {
    let Some(mut servers) = Server::new(Kind::Redis).start_sentinel().await else { return };
    let sentinel = url(servers.sentinel.address());
    let keeper =
        Keeper::start(RedisConfig::sentinel("redis://main", [sentinel]).app("test"), &["t"]).await;
    let first = keeper.keep("t", "1").await;
    until(&servers.replica, &["XLEN", &key("t")], "1").await;
    let before = keeper.interruptions();
    servers.primary.kill();
    keeper.interrupted(before).await;
    let begun = Instant::now();
    let second = loop {
        if let Ok(position) = keeper.try_keep("t", "2").await {
            break position;
        }
        assert!(begun.elapsed() < PATIENCE);
    };
    assert!(!keeper.after("t", first).await.is_complete);
    assert!(keeper.after("t", second).await.is_complete);
    assert!(second.number > first.number);
    assert_eq!(texts(&keeper.newest("t").await.messages), ["1", "2"]);
}

#[tokio::test]
async fn a_long_page_is_read_in_parts() {
    let Some(server) = Server::new(Kind::Redis).start().await else { return };
    let keeper = Keeper::start(config(server.address()), &[]).await;
    let head = keeper.newest("t").await.last;
    let waiting: Vec<_> = (0..1700).map(|number| keeper.append("t", number.to_string())).collect();
    for answer in waiting {
        told(answer).await.expect("it is kept");
    }
    let expected: Vec<_> = (0..1700).map(|number| number.to_string()).collect();
    let all = keeper.newest("t").await;
    assert_eq!(texts(&all.messages), expected);
    let page = keeper.after("t", head).await;
    assert_eq!((page.messages, page.is_complete), (all.messages.clone(), true));
    let last = all.messages[1699].position;
    for limit in [499, 500, 501, 1000, 1200] {
        let page = keeper.store.read("t", Since::Before(last), limit).await.unwrap();
        assert_eq!(texts(&page.messages), expected[1699 - limit..1699]);
        let page = keeper.store.read("t", Since::After(head), limit).await.unwrap();
        assert_eq!(texts(&page.messages), expected[..limit]);
        assert!(page.is_complete);
    }
}

#[tokio::test]
async fn messages_that_are_too_old_do_not_come_back_when_others_are_kept_for_longer() {
    let Some(server) = Server::new(Kind::Redis).start().await else { return };
    let keeper = Keeper::start(config(server.address()), &[]).await;
    let brief = Keep { within: Duration::from_millis(50), ..KEEP };
    let first = told(keeper.append_for("t", "brief", brief)).await.unwrap();
    sleep(Duration::from_millis(60)).await;
    keeper.keep("t", "long").await;
    assert_eq!(texts(&keeper.newest("t").await.messages), ["long"]);
    assert!(keeper.after("t", first).await.is_complete);
    let before = keeper.read("t", Since::Before(keeper.newest("t").await.last)).await;
    assert!(!before.is_complete);
}

#[tokio::test]
async fn keys_expire_a_day_after_their_messages() {
    let Some(server) = Server::new(Kind::Redis).start().await else { return };
    let keeper = Keeper::start(config(server.address()), &[]).await;
    keeper.newest("read").await;
    keeper.keep("kept", "x").await;
    let keys = server.ask(&["KEYS", "tc:*"]).await;
    for key in keys.lines().filter(|key| !key.ends_with(":run")) {
        let ttl: i64 = server.ask(&["TTL", key]).await.parse().unwrap();
        let hours = if key.ends_with(":kept") { 25..=26 } else { 23..=25 };
        assert!(hours.contains(&(ttl / 3600)), "{key}: {ttl} s");
    }
}

#[tokio::test]
async fn messages_that_are_too_old_take_the_place_of_no_others_in_a_page() {
    const WITHIN: Duration = Duration::from_secs(2);
    for kind in [Kind::Redis, Kind::Valkey] {
        let Some(server) = Server::new(kind).start().await else { continue };
        let keeper = Keeper::start(config(server.address()), &[]).await;
        let keep = |text: &'static str| {
            told(keeper.append_for("t", text, Keep { within: WITHIN, ..KEEP }))
        };
        let first = keep("1").await.unwrap();
        keep("2").await.unwrap();
        keep("3").await.unwrap();
        // The server removes them with the next message that comes when they are too old: none does.
        sleep(WITHIN / 2).await;
        let last = keep("4").await.unwrap();
        sleep(WITHIN / 2 + Duration::from_millis(100)).await;
        assert_eq!(server.ask(&["XLEN", &key("t")]).await, "4");
        let page = keeper.store.read("t", Since::After(first), 1).await.unwrap();
        assert_eq!((texts(&page.messages), page.is_complete), (vec!["4".to_owned()], false));
        for (since, limit) in [(Since::Newest, 2), (Since::Before(last), 1)] {
            let page = keeper.store.read("t", since, limit).await.unwrap();
            let expected: &[&str] = if since == Since::Newest { &["4"] } else { &[] };
            assert_eq!(texts(&page.messages), expected, "{since:?}");
        }
    }
}

/// What the documentation says that a user needs.
const RULES: &str = "resetchannels +publish +subscribe +psubscribe +unsubscribe +punsubscribe \
    &tc:test:all &tc:test:n:* &tc:test:t:* +eval +evalsha +get +set +del";
const HISTORY_RULES: &str = "&tc:test:h:* +script|load +info +time +mget +pexpire +xadd +xrange \
    +xrevrange +xtrim +multi +exec";

#[tokio::test]
async fn a_user_with_the_documented_rights_has_a_history_and_one_with_less_none() {
    for kind in [Kind::Redis, Kind::Valkey] {
        let server = Server::new(kind)
            .user("all", "secret", &format!("{RULES} {HISTORY_RULES} ~tc:{{test}}:*"))
            .user("less", "secret", &format!("{RULES} ~tc:{{test}}:r:*"));
        let Some(server) = server.start().await else { continue };
        let config = |user: &str| {
            RedisConfig::new(format!("redis://{user}:secret@{}", server.address())).app("test")
        };
        let less = Redis::connect(config("less")).await.expect("without a history");
        assert!(less.history().is_none());
        let keeper = Keeper::start(config("all"), &["t"]).await;
        let position = keeper.keep("t", "1").await;
        keeper.hears("t", position).await;
        assert_eq!(texts(&keeper.newest("t").await.messages), ["1"]);
    }
}
