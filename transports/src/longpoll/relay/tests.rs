use std::future::poll_fn;
use std::sync::atomic::Ordering;
use std::task::Poll;

use http::Method;
use http_body_util::Full;
use tokio::time::Instant;

use self::nodes::{Fault, Node, Responding, Unfinished, get, nodes, nodes_with, post, request};
use super::*;
use crate::frame::Message;
use crate::limits::Limits;
use crate::longpoll::LongPollConfig;
use crate::rate::Rate;

mod nodes;

const NDJSON: &str = "application/x-ndjson";
const EMPTY_500: &str = r#"{"status":500}"#;

/// Polls a future once, which is not ready.
async fn begin(responding: &mut Responding) {
    poll_fn(|cx| {
        assert!(responding.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_session_is_polled_and_posted_to_in_turns_at_two_nodes() {
    let (a, b, network) = nodes();
    let mut token = a.connect("").await;
    let mut received = Vec::new();
    for round in 0..40 {
        let (posts_at, polls_at) =
            (if round & 1 == 0 { &a } else { &b }, if round & 2 == 0 { &a } else { &b });
        assert_eq!(posts_at.post(&token, format!("[{round}]")).await.text(), r#"{"status":200}"#);
        let answer = polls_at.poll(&token).await;
        received.extend(answer.messages());
        token = answer.token();
    }
    assert_eq!(received, (0..40).map(|round| format!("[{round}]")).collect::<Vec<_>>());
    assert_eq!(network.relays.load(Ordering::Relaxed), 40);
}

#[tokio::test(start_paused = true)]
async fn a_poll_that_waits_at_another_node_is_answered_as_soon_as_a_message_comes() {
    let (a, b, _network) = nodes();
    let token = a.connect("").await;
    let mut poll = b.poll(&token);
    begin(&mut poll).await;
    let began = Instant::now();
    a.post(&token, "[1]").await;
    assert_eq!(poll.await.messages(), ["[1]"]);
    assert!(began.elapsed().is_zero());
    let answer = b.poll(&token).await;
    let (next, began) = (answer.token(), Instant::now());
    let answer = b.poll(&next).await;
    assert_eq!((answer.json()["status"].clone(), answer.token()), (204.into(), next));
    assert_eq!(began.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_lost_between_nodes_comes_again_with_the_same_token() {
    let (a, b, network) = nodes();
    let token = a.connect("").await;
    a.post(&token, "[1]").await;
    *network.fault.lock() = Some(Fault::LosesAnswer);
    let lost = b.poll(&token).await;
    assert_eq!((lost.json()["status"].clone(), lost.token()), (204.into(), token.clone()));
    *network.fault.lock() = None;
    let answer = b.poll(&token).await;
    assert_eq!(answer.messages(), ["[1]"]);
    assert_eq!(b.poll(&answer.token()).await.json()["status"], 204);
}

#[tokio::test(start_paused = true)]
async fn a_post_whose_answer_is_lost_is_refused_and_may_be_repeated() {
    let (a, b, network) = nodes();
    let token = a.connect("").await;
    *network.fault.lock() = Some(Fault::LosesAnswer);
    assert_eq!(b.post(&token, "[1]").await.text(), EMPTY_500);
    *network.fault.lock() = None;
    assert_eq!(b.post(&token, "[1]").await.text(), r#"{"status":200}"#);
    assert_eq!(b.poll(&token).await.messages(), ["[1]", "[1]"]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_withdraws_its_poll_from_the_other_node() {
    let (a, b, _network) = nodes();
    let token = a.connect("").await;
    let mut poll = b.poll(&token);
    begin(&mut poll).await;
    assert!(!a.outbox().is_idle());
    drop(poll);
    assert!(a.outbox().is_idle());
    a.post(&token, "[1]").await;
    assert_eq!(a.poll(&token).await.messages(), ["[1]"]);
}

#[tokio::test(start_paused = true)]
async fn of_two_polls_with_one_token_at_two_nodes_the_newer_gets_the_messages() {
    for is_older_local in [true, false] {
        let (a, b, _network) = nodes();
        let (older_at, newer_at) = if is_older_local { (&a, &b) } else { (&b, &a) };
        let token = a.connect("").await;
        let mut older = older_at.poll(&token);
        begin(&mut older).await;
        let mut newer = newer_at.poll(&token);
        begin(&mut newer).await;
        let answer = older.await;
        assert_eq!((answer.json()["status"].clone(), answer.token()), (204.into(), token.clone()));
        a.post(&token, "[1]").await;
        assert_eq!(newer.await.messages(), ["[1]"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_cancelled_halfway_is_handled_as_a_whole_or_not_at_all() {
    let (a, b, _network) = nodes();
    let token = a.connect("").await;
    let lines = |from: usize| (from..from + 100).map(|n| format!("[{n}]\n")).collect::<String>();
    let mut halfway = b.start(post(&token, NDJSON, Full::<Bytes>::from(lines(100))));
    begin(&mut halfway).await;
    drop(halfway);
    drop(b.start(post(&token, NDJSON, Full::<Bytes>::from(lines(200)))));
    b.start(post(&token, NDJSON, Full::<Bytes>::from(lines(300)))).await;
    let expected: Vec<_> = (100..200).chain(300..400).map(|n| format!("[{n}]")).collect();
    assert_eq!(b.poll(&token).await.messages(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_cannot_be_asked_has_an_answer_that_clients_act_on() {
    let (a, b, network) = nodes();
    let token = a.connect("").await;
    let nothing = format!(r#"{{"messages":[],"status":204,"token":"{token}"}}"#);
    for (why, status, poll_body, after) in [
        (NotRelayed::Gone, 200, EMPTY_500, None),
        (NotRelayed::Late, 200, &*nothing, None),
        (NotRelayed::Busy, 503, EMPTY_500, Some("5")),
    ] {
        *network.fault.lock() = Some(Fault::Fails(why));
        let began = Instant::now();
        let (polled, posted) = (b.poll(&token).await, b.post(&token, "[1]").await);
        assert!(began.elapsed().is_zero(), "{why:?}: no pause");
        assert_eq!((polled.status.as_u16(), polled.text()), (status, poll_body), "{why:?}");
        assert_eq!((posted.status.as_u16(), posted.text()), (status, EMPTY_500), "{why:?}");
        for answer in [polled, posted] {
            let header = answer.headers.get(RETRY_AFTER).map(|after| after.to_str().unwrap());
            assert_eq!(header, after, "{why:?}");
        }
    }
    *network.fault.lock() = None;
    drop(a);
    assert_eq!(b.poll(&token).await.text(), EMPTY_500, "gone");
}

#[tokio::test(start_paused = true)]
async fn an_answer_goes_to_the_client_as_it_came() {
    let (a, b, network) = nodes();
    let token = a.connect("").await;
    for (status, retry_after, expected) in
        [(413, None, 413), (503, Some(7), 503), (0, None, 500), (101, None, 500), (9999, None, 500)]
    {
        let body = Bytes::from_static(br#"{"status":1}"#);
        let relayed = RelayedAnswer { status, retry_after, body: body.clone() };
        *network.fault.lock() = Some(Fault::Answers(relayed));
        let answer = b.poll(&token).await;
        assert_eq!((answer.status.as_u16(), &answer.body), (expected, &body));
        let after = retry_after.map(|after| after.to_string());
        assert_eq!(
            answer.headers.get(RETRY_AFTER).map(|it| it.to_str().unwrap().to_owned()),
            after
        );
        assert_eq!(answer.headers["cache-control"], "no-store");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_are_answered_as_at_the_node_that_has_the_session() {
    let (a, b, network) = nodes();
    let token = a.connect("").await;
    let text = |body: &'static str| move |token: &str| post(token, "text/plain", Full::from(body));
    let lines = |body: &'static str| move |token: &str| post(token, NDJSON, Full::from(body));
    let from = |origin: &'static str, method: Method| {
        move |token: &str| {
            let request = request(method.clone(), &format!("token={token}"));
            let request = request.header("access-control-request-headers", "x-a");
            request.header("origin", origin).body(Full::<Bytes>::default()).unwrap()
        }
    };
    let long: &'static str = Box::leak("x".repeat(2000).into());
    let longer: &'static str = Box::leak("x".repeat(1 << 20).into());
    type Make = Box<dyn Fn(&str) -> http::Request<Full<Bytes>>>;
    let cases: [(&str, Make); 12] = [
        ("a message", Box::new(text("[1]"))),
        ("a message over the limit", Box::new(text(long))),
        ("a body over the limit", Box::new(text(longer))),
        ("not base64", Box::new(lines("{}"))),
        ("no lines", Box::new(lines(""))),
        ("a poll", Box::new(|token| get(&format!("token={token}")))),
        ("a friendly origin", Box::new(from("http://friend.test", Method::GET))),
        ("another origin", Box::new(from("http://elsewhere.test", Method::GET))),
        ("a POST from another origin", Box::new(from("http://elsewhere.test", Method::POST))),
        ("a preflight", Box::new(from("http://friend.test", Method::OPTIONS))),
        ("another method", Box::new(from("http://friend.test", Method::PUT))),
        (
            "a query that is too long",
            Box::new(|token| get(&format!("{}&token={token}", "x".repeat(20_000)))),
        ),
    ];
    for (name, make) in cases {
        let began = Instant::now();
        let (here, middle) = (a.start(make(&token)).await, Instant::now());
        let there = b.start(make(&token)).await;
        assert_eq!((here, middle - began), (there, middle.elapsed()), "{name}");
    }
    for (breaks, status, seconds) in [(true, 400, 0), (false, 408, 15)] {
        let token = a.connect("").await;
        for node in [&a, &b] {
            let began = Instant::now();
            let answer = node.start(post(&token, NDJSON, Unfinished { breaks })).await;
            assert_eq!(answer.json()["status"], status);
            assert_eq!(began.elapsed().as_secs(), seconds);
        }
    }
    assert_eq!(network.relays.load(Ordering::Relaxed), 6);
    b.post(&token, "[malformed]").await;
    let answers = [a.post(&token, "[1]").await, b.post(&token, "[1]").await];
    assert!(answers.iter().all(|answer| answer.text() == EMPTY_500));
}

#[tokio::test(start_paused = true)]
async fn without_cors_a_relayed_answer_has_no_headers_of_it() {
    let (a, b, _network) = nodes_with(&LongPollConfig::new().cors(false), Limits::new());
    let token = a.connect("").await;
    for answer in [b.post(&token, "[1]").await, b.poll(&token).await] {
        assert_eq!(answer.headers.get("access-control-allow-origin"), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_base64_gets_binary_messages_at_either_node() {
    let (a, b, _network) = nodes();
    let token = a.connect("binary=base64").await;
    b.start(post(&token, NDJSON, Full::<Bytes>::from("AP8="))).await;
    let answer = b.poll(&token).await;
    assert_eq!(answer.messages(), ["AP8="]);
    assert_eq!(a.poll(&token).await, answer);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_repeated_at_all_nodes_as_often_as_at_one() {
    let (a, b, _network) = nodes();
    let token = a.connect("").await;
    a.post(&token, "[1]").await;
    let mut answered = 0;
    for _ in 0..40 {
        for node in [&a, &b] {
            answered += usize::from(node.poll(&token).await.json()["status"] == 200);
        }
    }
    assert_eq!(answered, 50);
}

#[tokio::test(start_paused = true)]
async fn a_poll_of_an_unknown_token_pauses_once_and_a_post_not_at_all() {
    let (a, b, _network) = nodes();
    let known = a.connect("").await;
    let unknown = known.replace("phx-lp.", "phx-lp.0123456789abcdefghijkl");
    let unknown = [&unknown[..29], &unknown[51..]].concat();
    assert_eq!(unknown.len(), known.len());
    let began = Instant::now();
    assert_eq!(b.post(&unknown, "[1]").await.text(), EMPTY_500);
    assert!(began.elapsed().is_zero());
    assert_eq!(b.poll(&unknown).await.text(), EMPTY_500);
    let pause = began.elapsed().as_millis();
    assert!((500..=1502).contains(&pause), "{pause} ms");
}

#[tokio::test(start_paused = true)]
async fn a_request_is_passed_on_once() {
    let (a, b, network) = nodes();
    let token = a.connect("").await;
    for request in [
        Relayed::Poll { token: token.clone() },
        Relayed::Post { token: token.clone(), ndjson: false, body: "[1]".into() },
    ] {
        let answer = b.service.relayed(request).await;
        assert_eq!((answer.status, &*answer.body), (200, EMPTY_500.as_bytes()));
    }
    assert_eq!(network.relays.load(Ordering::Relaxed), 0);
    assert_eq!(a.outbox().backlog(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_relayed_post_that_exceeds_the_limits_of_its_node_is_refused() {
    let limits = Limits::new().max_message(1000).memory(1 << 20).max_outbox(100_000);
    let (a, _b, _network) = nodes_with(&LongPollConfig::new(), limits);
    let token = a.connect("").await;
    let relayed = |size: usize| {
        let body = vec![b'\n'; size].into();
        a.service.relayed(Relayed::Post { token: token.clone(), ndjson: true, body })
    };
    assert_eq!(relayed(3000).await.status, 200);
    assert_eq!(relayed(6000).await.status, 413);
    let _rest = a.memory.account().hold(1 << 20);
    let busy = relayed(3000).await;
    assert_eq!((busy.status, busy.retry_after), (503, Some(5)));
    assert_eq!(busy.body, EMPTY_500);
}

#[tokio::test(start_paused = true)]
async fn what_is_passed_on_counts_against_the_memory_of_the_node_that_passes_it_on() {
    let limits = Limits::new().memory(8 << 20);
    let (a, b, network) = nodes_with(&LongPollConfig::new(), limits);
    let token = a.connect("").await;
    a.outbox().push(Message::text("x".repeat(50_000)));
    let answer = b.poll(&token).await;
    assert_eq!(answer.status, 200);
    assert!((50_000..60_000).contains(&b.memory.reserved()), "until it is written");
    drop(answer);
    assert_eq!(b.memory.reserved(), 0);

    let rest = b.memory.account().hold(8 << 20);
    let refused = b.poll(&token).await;
    assert_eq!((refused.status.as_u16(), refused.text()), (503, EMPTY_500));
    let refused = b.post(&token, "x".repeat(5000)).await;
    assert_eq!((refused.status.as_u16(), refused.text()), (503, EMPTY_500));
    assert_eq!(b.post(&token, "[1]").await.status, 200, "what is small is not counted");
    drop(rest);
    assert_eq!(b.memory.reserved(), 0);
    assert_eq!(b.poll(&token).await.messages().len(), 2, "nothing is lost");
    assert_eq!(network.relays.load(Ordering::Relaxed), 4);
}

#[tokio::test(start_paused = true)]
async fn a_message_or_a_body_longer_than_nodes_can_exchange_is_refused_elsewhere_alone() {
    let limits = Limits::new().max_message(16 << 20).max_outbox(16 << 20);
    let (a, b, _network) = nodes_with(&LongPollConfig::new(), limits);
    let token = a.connect("").await;
    let long = || Bytes::from("x".repeat(6 << 20));
    let refused = b.post(&token, long()).await;
    assert_eq!((refused.status.as_u16(), refused.text()), (413, r#"{"status":413}"#));
    assert_eq!(a.post(&token, long()).await.status, 200);
    assert_eq!(b.poll(&token).await.text(), EMPTY_500);
    assert_eq!(a.poll(&token).await.messages()[0].len(), 6 << 20);
}

#[tokio::test(start_paused = true)]
async fn the_answer_to_a_client_that_exceeds_its_rate_waits_at_either_node() {
    let rate = Rate::new(1, 1 << 20).burst(Duration::from_secs(1));
    let (a, b, _network) = nodes_with(&LongPollConfig::new(), Limits::new().rate(rate));
    let token = a.connect("").await;
    let mut waits = Vec::new();
    for (node, lines) in [(&a, "[1]"), (&b, "[2]"), (&b, "[3]\n[4]\n[5]\n[6]"), (&a, "")] {
        let began = Instant::now();
        let answer = node.start(post(&token, NDJSON, Full::<Bytes>::from(lines))).await;
        assert_eq!(answer.text(), r#"{"status":200}"#);
        waits.push(began.elapsed().as_secs_f64().round());
    }
    assert_eq!(waits, [0.0, 1.0, 2.0, 2.0], "a node waits for an answer for three seconds");
}

#[tokio::test(start_paused = true)]
async fn without_peers_a_token_names_no_node_and_one_that_does_is_unknown() {
    let (alone, (a, _b, network)) = (Node::alone(), nodes());
    let (token, other) = (alone.connect("").await, a.connect("").await);
    assert_eq!(token.len(), "phx-lp.".len() + 22 + "0".len());
    assert_eq!(other.len(), token.len() + ".AAAAAAAAAAE.".len());
    assert!(other.ends_with(".AAAAAAAAAAE.0"), "{other}");
    alone.post(&token, "[1]").await;
    let named = format!("{}.AAAAAAAAAAE.0", &token[..29]);
    let unnamed = format!("{}0", &other[..29]);
    for (node, token) in [(&alone, named), (&alone, other), (&a, unnamed)] {
        let began = Instant::now();
        assert_eq!(node.poll(&token).await.text(), EMPTY_500, "{token}");
        assert_eq!(node.post(&token, "[1]").await.text(), EMPTY_500, "{token}");
        assert!(began.elapsed() >= Duration::from_secs(1), "two pauses");
    }
    assert_eq!(alone.poll(&token).await.messages(), ["[1]"]);
    assert_eq!(network.relays.load(Ordering::Relaxed), 0);
}
