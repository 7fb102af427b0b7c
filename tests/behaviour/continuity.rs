//! A session that outlives its connections. The first half of the scenarios crosses from a connection
//! to the next, over each pair of transports, with numbers and without, in both versions of the protocol.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::mpsc;
use tower_channels::channel::Result;
use tower_channels::{
    Channel, Endpoint, JoinError, Joined, LongPollConfig, Payload, Reason, Reply, ResumeConfig,
    Socket,
};

use crate::support::line::ok;
use crate::support::longpoll::{JSON, NDJSON};
use crate::support::raw_websocket::{CLOSE, PING, PONG, TEXT, frame as masked};
use crate::support::{
    Client, Http, Line, LongPoll, RawWebSocket, Server, Transport, UPGRADE, Version, binary, soon,
};
use Transport::{LongPoll as Poll, WebSocket};

const SESSION: &str = "user_id=u1&session=0123456789abcdefghijkl";

/// From one connection of a session to the next.
struct Way {
    server: Server,
    from: Transport,
    to: Transport,
    numbered: bool,
    version: Version,
}

impl Way {
    async fn begin(&self) -> Line {
        self.line(self.from, 0).await
    }

    async fn line(&self, transport: Transport, received: u64) -> Line {
        let parameters = parameters(self.numbered, received);
        Line::of_version(self.version, &self.server, transport, &parameters).await
    }

    /// A first connection with `room:a` joined, and nothing that would be said again.
    async fn member(&self) -> Line {
        let mut line = self.begin().await;
        line.join("1", "room:a").await;
        line.rejoin_deadline().await;
        line
    }

    async fn back(&self, received: u64) -> Line {
        self.line(self.to, received).await
    }

    async fn broadcast(&self, topic: &str, number: u32) {
        self.server.broadcast(topic, "new_msg", &format!(r#"{{"n":{number}}}"#)).await;
    }
}

fn parameters(numbered: bool, received: u64) -> String {
    if numbered { format!("{SESSION}&received={received}") } else { SESSION.to_owned() }
}

fn new_msg(topic: &str, number: u32) -> String {
    format!(r#"[null,null,"{topic}","new_msg",{{"n":{number}}}]"#)
}

macro_rules! ways {
    ($($scenario:ident),* $(,)?) => {
        mod websocket_to_websocket { way!(WebSocket WebSocket false: $($scenario)*); }
        mod websocket_to_longpoll { way!(WebSocket LongPoll false: $($scenario)*); }
        mod longpoll_to_websocket { way!(LongPoll WebSocket false: $($scenario)*); }
        mod longpoll_to_longpoll { way!(LongPoll LongPoll false: $($scenario)*); }
        mod numbered_websocket_to_websocket { way!(WebSocket WebSocket true: $($scenario)*); }
        mod numbered_websocket_to_longpoll { way!(WebSocket LongPoll true: $($scenario)*); }
        mod numbered_longpoll_to_websocket { way!(LongPoll WebSocket true: $($scenario)*); }
        mod numbered_longpoll_to_longpoll { way!(LongPoll LongPoll true: $($scenario)*); }
    };
}

macro_rules! way {
    ($from:ident $to:ident $numbered:literal: $($scenario:ident)*) => {
        way!(v1 V1 $from $to $numbered: $($scenario)*);
        way!(v2 V2 $from $to $numbered: $($scenario)*);
    };
    ($name:ident $version:ident $from:ident $to:ident $numbered:literal: $($scenario:ident)*) => {
        mod $name {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $scenario() {
                    use crate::support::{Server, Transport, Version};
                    let (from, to) = (Transport::$from, Transport::$to);
                    let (server, version) = (Server::start().await, Version::$version);
                    let way =
                        super::super::Way { server, from, to, numbered: $numbered, version };
                    super::super::$scenario(way).await;
                }
            )*
        }
    };
}

mod presence;

ways![
    a_live_channel_answers_a_join_with_what_its_first_join_was_answered,
    what_is_broadcast_meanwhile_comes_in_order_after_the_rejoin_and_not_before,
    each_topic_waits_for_its_own_rejoin,
    a_channel_keeps_its_state,
    a_reply_that_comes_late_resolves_its_push,
    what_was_never_read_is_sent_again,
    what_was_read_and_acknowledged_is_not_sent_again,
    an_intercepted_broadcast_is_handled_while_nobody_is_there,
    two_joins_in_a_row_are_harmless,
    a_leave_sent_by_a_join_that_timed_out_only_detaches,
    a_leave_of_a_channel_that_the_client_knows_of_ends_it,
    a_crash_meanwhile_makes_the_next_join_an_ordinary_one,
    several_returns_lose_nothing,
    a_disconnect_by_id_ends_a_parked_session,
    what_waits_is_bounded_and_over_the_limit_the_session_begins_anew,
    another_user_gets_nothing_of_the_session,
];

async fn a_live_channel_answers_a_join_with_what_its_first_join_was_answered(way: Way) {
    let reply = |reference| {
        format!(
            r#"[null,"{reference}","room:a","phx_reply",{{"status":"ok","response":{{"echo":[5]}}}}]"#
        )
    };
    let mut line = way.begin().await;
    line.send(r#"["1","1","room:a","phx_join",{"echo":[5]}]"#).await;
    line.expect(&reply(1)).await;
    line.expect(r#"[null,null,"room:a","joined",{"user_id":"u1"}]"#).await;
    line.rejoin_deadline().await;
    let mut line = way.back(line.cut().await).await;
    line.begin_join("7", "room:a").await;
    line.expect(&reply(7)).await;
    line.ping("7", "room:a").await;
}

async fn what_is_broadcast_meanwhile_comes_in_order_after_the_rejoin_and_not_before(way: Way) {
    let received = way.member().await.cut().await;
    for number in 1..=5 {
        way.broadcast("room:a", number).await;
    }
    let mut line = way.back(received).await;
    line.heartbeat().await;
    way.broadcast("room:a", 6).await;
    line.heartbeat().await;
    line.rejoin("7", "room:a").await;
    for number in 1..=6 {
        line.expect(&new_msg("room:a", number)).await;
    }
    way.broadcast("room:a", 7).await;
    line.expect(&new_msg("room:a", 7)).await;
    line.ping("7", "room:a").await;
}

async fn each_topic_waits_for_its_own_rejoin(way: Way) {
    let mut line = way.begin().await;
    line.join("1", "room:a").await;
    line.join("2", "room:b").await;
    line.rejoin_deadline().await;
    let received = line.cut().await;
    for number in [1, 2] {
        way.broadcast("room:a", number).await;
        way.broadcast("room:b", number).await;
    }
    let mut line = way.back(received).await;
    line.rejoin("7", "room:b").await;
    line.expect(&new_msg("room:b", 1)).await;
    line.expect(&new_msg("room:b", 2)).await;
    line.ping("7", "room:b").await;
    way.broadcast("room:a", 3).await;
    line.heartbeat().await;
    line.rejoin("8", "room:a").await;
    for number in [1, 2, 3] {
        line.expect(&new_msg("room:a", number)).await;
    }
    line.ping("8", "room:a").await;
}

async fn a_channel_keeps_its_state(way: Way) {
    let mut line = way.member().await;
    line.send(r#"["1","2","room:a","assign",{"k":"k","v":[1]}]"#).await;
    line.expect(&ok("2", "room:a")).await;
    line.rejoin_deadline().await;
    let mut line = way.back(line.cut().await).await;
    line.rejoin("7", "room:a").await;
    line.send(r#"["7","8","room:a","fetch",{"k":"k"}]"#).await;
    line.expect(r#"[null,"8","room:a","phx_reply",{"status":"ok","response":{"v":[1]}}]"#).await;
}

async fn a_reply_that_comes_late_resolves_its_push(way: Way) {
    let mut line = way.member().await;
    line.send(r#"["1","2","room:a","slow",{"ms":700}]"#).await;
    line.ping("1", "room:a").await;
    line.rejoin_deadline().await;
    let mut line = way.back(line.cut().await).await;
    line.rejoin("7", "room:a").await;
    line.expect(r#"[null,"2","room:a","phx_reply",{"status":"ok","response":{"ms":700}}]"#).await;
    line.ping("7", "room:a").await;
}

async fn what_was_never_read_is_sent_again(way: Way) {
    let mut witness = witness(&way.server, "room:a").await;
    let mut line = way.member().await;
    line.send_all(&[
        r#"["1","2","room:a","ping",{}]"#,
        r#"["1",null,"room:a","push_me",{"n":0}]"#,
        r#"["1",null,"room:a","new_msg",{"n":1}]"#,
    ])
    .await;
    witness.expect(&new_msg("room:a", 1)).await;
    let mut line = way.back(line.cut().await).await;
    line.rejoin("7", "room:a").await;
    line.expect(&ok("2", "room:a")).await;
    line.expect(r#"[null,null,"room:a","pushed",{"n":0}]"#).await;
    line.expect(&new_msg("room:a", 1)).await;
    line.ping("7", "room:a").await;
}

async fn what_was_read_and_acknowledged_is_not_sent_again(way: Way) {
    let mut line = way.member().await;
    way.broadcast("room:a", 1).await;
    line.expect(&new_msg("room:a", 1)).await;
    line.ping("1", "room:a").await;
    line.rejoin_deadline().await;
    let mut line = way.back(line.cut().await).await;
    line.rejoin("7", "room:a").await;
    line.ping("7", "room:a").await;
}

async fn an_intercepted_broadcast_is_handled_while_nobody_is_there(way: Way) {
    let received = way.member().await.cut().await;
    way.server.broadcast("room:a", "shout", r#"{"n":1}"#).await;
    way.server.broadcast("room:a", "shout", r#"{"n":2,"skip":"u1"}"#).await;
    let mut line = way.back(received).await;
    line.rejoin("7", "room:a").await;
    line.expect(r#"[null,null,"room:a","shout",{"n":1,"to":"u1"}]"#).await;
    line.ping("7", "room:a").await;
}

async fn two_joins_in_a_row_are_harmless(way: Way) {
    let received = way.member().await.cut().await;
    for number in 1..=3 {
        way.broadcast("room:a", number).await;
    }
    let mut line = way.back(received).await;
    line.send_all(&[r#"["7","7","room:a","phx_join",{}]"#, r#"["8","8","room:a","phx_join",{}]"#])
        .await;
    let (mut replies, mut messages) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let got = line.recv().await;
        if got.contains("phx_reply") { replies.push(got) } else { messages.push(got) }
    }
    assert_eq!(replies, [ok("7", "room:a"), ok("8", "room:a")]);
    assert_eq!(messages, [1, 2, 3].map(|number| new_msg("room:a", number)));
    line.ping("8", "room:a").await;
}

async fn a_leave_sent_by_a_join_that_timed_out_only_detaches(way: Way) {
    let received = way.member().await.cut().await;
    way.broadcast("room:a", 1).await;
    let mut line = way.back(received).await;
    line.send_all(&[
        r#"["7","7","room:a","phx_join",{}]"#,
        r#"["7","8","room:a","phx_leave",{}]"#,
        r#"["9","9","room:a","phx_join",{}]"#,
    ])
    .await;
    let mut got = Vec::new();
    while !got.contains(&new_msg("room:a", 1)) || !got.contains(&ok("9", "room:a")) {
        got.push(line.recv().await);
    }
    assert!(got.contains(&ok("8", "room:a")), "{got:?}");
    line.ping("9", "room:a").await;
}

async fn a_leave_of_a_channel_that_the_client_knows_of_ends_it(way: Way) {
    let line = way.member().await;
    let mut line = way.back(line.cut().await).await;
    line.rejoin("7", "room:a").await;
    line.ping("7", "room:a").await;
    line.send(r#"["7","8","room:a","phx_leave",{}]"#).await;
    line.expect(&ok("8", "room:a")).await;
    line.expect(r#"[null,null,"room:a","phx_close",{}]"#).await;
    way.broadcast("room:a", 1).await;
    line.heartbeat().await;
    line.join("9", "room:a").await;
}

async fn a_crash_meanwhile_makes_the_next_join_an_ordinary_one(way: Way) {
    let mut witness = witness(&way.server, "room:a").await;
    let mut line = way.member().await;
    line.send_all(&[r#"["1",null,"room:a","new_msg",{"n":1}]"#, r#"["1","2","room:a","boom",{}]"#])
        .await;
    witness.expect(&new_msg("room:a", 1)).await;
    let received = line.cut().await;
    // Whether it has crashed already can be seen from outside only by a join that finds it gone.
    let mut line = way.back(received).await;
    line.join_after_a_crash("room:a").await;
    line.ping("last", "room:a").await;
}

async fn several_returns_lose_nothing(way: Way) {
    let mut received = way.member().await.cut().await;
    for round in 0..4 {
        way.broadcast("room:a", 2 * round).await;
        let transport = if round % 2 == 0 { way.to } else { way.from };
        let mut line = way.line(transport, received).await;
        let join_ref = &format!("again-{round}");
        line.rejoin(join_ref, "room:a").await;
        way.broadcast("room:a", 2 * round + 1).await;
        line.expect(&new_msg("room:a", 2 * round)).await;
        line.expect(&new_msg("room:a", 2 * round + 1)).await;
        line.ping(join_ref, "room:a").await;
        line.rejoin_deadline().await;
        received = line.cut().await;
    }
}

async fn a_disconnect_by_id_ends_a_parked_session(way: Way) {
    let received = way.member().await.cut().await;
    way.broadcast("room:a", 1).await;
    way.server.disconnect("user_socket:u1").await;
    let mut line = way.back(received).await;
    line.join("7", "room:a").await;
    line.ping("7", "room:a").await;
}

async fn what_waits_is_bounded_and_over_the_limit_the_session_begins_anew(way: Way) {
    let received = way.member().await.cut().await;
    let large = format!(r#""{}""#, "x".repeat(500_000));
    for _ in 0..5 {
        way.server.broadcast("room:a", "new_msg", &large).await;
    }
    way.broadcast("room:a", 1).await;
    let mut line = way.back(received).await;
    line.join("7", "room:a").await;
    way.broadcast("room:a", 2).await;
    line.expect(&new_msg("room:a", 2)).await;
    line.ping("7", "room:a").await;
}

async fn another_user_gets_nothing_of_the_session(way: Way) {
    let received = way.member().await.cut().await;
    way.broadcast("room:a", 1).await;
    let other = "user_id=u2&session=0123456789abcdefghijkl&received=0";
    let mut client = Client::connect(&way.server, way.to, way.version, other).await;
    // A session of its own ends with its connection, and so is Phoenix's to the letter.
    client.send(r#"["1","1","room:a","phx_join",{}]"#).await;
    client.expect(r#"["1","1","room:a","phx_reply",{"status":"ok","response":{}}]"#).await;
    client.expect(r#"["1",null,"room:a","joined",{"user_id":"u2"}]"#).await;
    client.ping("1", "room:a").await;
    let mut line = way.back(received).await;
    line.rejoin("7", "room:a").await;
    line.expect(&new_msg("room:a", 1)).await;
    line.ping("7", "room:a").await;
}

/// Another client, without a session, that sees what is broadcast.
async fn witness(server: &Server, topic: &str) -> Client {
    let mut witness = Client::connect(server, WebSocket, Version::V2, "").await;
    witness.join("1", topic).await;
    witness
}

// Attaching.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_websocket_closes_the_older_with_1012() {
    let server = Server::start().await;
    let mut older = Line::open(&server, WebSocket, SESSION).await;
    let mut newer = Line::open(&server, WebSocket, SESSION).await;
    older.websocket().expect_close(1012).await;
    newer.heartbeat().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_poll_takes_over_with_its_first_poll_and_not_with_its_token() {
    let server = Server::start().await;
    let mut older = Line::open(&server, WebSocket, SESSION).await;
    let mut newer = Line::open(&server, Poll, SESSION).await;
    older.heartbeat().await;
    older.pong().await;
    newer.longpoll().begin_poll().await;
    older.websocket().expect_close(1012).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_phantom_token_that_is_never_used_changes_nothing() {
    let server = Server::start().await;
    let mut line = Line::open(&server, Poll, SESSION).await;
    line.join("1", "room:a").await;
    for _ in 0..3 {
        Line::open(&server, Poll, SESSION).await;
    }
    server.broadcast("room:a", "new_msg", r#"{"n":1}"#).await;
    line.expect(&new_msg("room:a", 1)).await;
    line.ping("1", "room:a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_poll_is_answered_204_and_the_next_request_is_told_500_once() {
    for newer in [WebSocket, Poll] {
        let server = Server::start().await;
        let mut older = LongPoll::open(&server, &format!("vsn=2.0.0&{SESSION}")).await;
        let mut held = older.held_poll(&server).await;
        let mut newer = Line::open(&server, newer, SESSION).await;
        newer.heartbeat().await;
        let answer = held.answer().await;
        assert_eq!((&answer["status"], &answer["messages"]), (&json!(204), &json!([])), "{answer}");
        assert_eq!(older.poll().await, json!({"status": 500}));
        older.expect_gone().await;
        newer.heartbeat().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_attachment_can_neither_send_nor_take_the_session_back() {
    let server = Server::start().await;
    let mut older = LongPoll::open(&server, &format!("vsn=2.0.0&{SESSION}")).await;
    older.post(JSON, r#"["1","1","room:a","phx_join",{}]"#).await;
    let mut newer = Line::open(&server, WebSocket, SESSION).await;
    newer.begin_join("2", "room:a").await;
    newer.skip_to(&ok("2", "room:a")).await;
    newer.expect(r#"[null,null,"room:a","joined",{"user_id":"u1"}]"#).await;
    let answer = older.post(JSON, r#"["1",null,"room:a","new_msg",{"n":1}]"#).await;
    assert_eq!(answer, json!({"status": 500}));
    newer.ping("2", "room:a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_answer_of_a_kept_session_waits_for_a_slow_close_handler() {
    let server = Server::start().await;
    let began = Instant::now();
    Line::open(&server, Poll, SESSION).await;
    assert!(began.elapsed() >= Duration::from_millis(15));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_cut_again_and_again_keeps_its_session() {
    for transport in [WebSocket, Poll] {
        let server = Server::start().await;
        let mut line = Line::open(&server, transport, SESSION).await;
        line.join("1", "room:a").await;
        line.rejoin_deadline().await;
        // The server learns of none of these cuts.
        let mut dead = Vec::new();
        for _ in 0..20 {
            let mut next = Line::open(&server, transport, SESSION).await;
            next.rejoin("7", "room:a").await;
            dead.push(std::mem::replace(&mut line, next));
        }
        line.rejoin_deadline().await;
        line.ping("7", "room:a").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_clients_that_take_a_session_from_each_other_one_gets_a_session_of_its_own() {
    for transport in [WebSocket, Poll] {
        let server = Server::start().await;
        let mut line = Line::open(&server, transport, SESSION).await;
        line.join("1", "room:a").await;
        line.rejoin_deadline().await;
        let own = soon(async {
            loop {
                let mut next = Line::open(&server, transport, SESSION).await;
                next.send(r#"["7","7","room:a","phx_join",{}]"#).await;
                if next.recv().await.starts_with(r#"["7","7","#) {
                    return next;
                }
                std::mem::replace(&mut line, next).give_way().await;
            }
        });
        let mut own = own.await;
        own.expect(r#"["7",null,"room:a","joined",{"user_id":"u1"}]"#).await;
        server.broadcast("room:a", "new_msg", r#"{"n":1}"#).await;
        own.expect(&new_msg("room:a", 1)).await;
        line.skip_to(&new_msg("room:a", 1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flapping_websocket_is_refused_and_a_long_poll_takes_the_session_up() {
    let server = Server::start().await;
    let mut line = Line::open(&server, WebSocket, SESSION).await;
    line.join("1", "room:a").await;
    line.rejoin_deadline().await;
    line.cut().await;
    for _ in 0..4 {
        Line::open(&server, WebSocket, SESSION).await.cut().await;
    }
    let mut http = Http::connect(&server).await;
    let target = format!("/socket/websocket?vsn=2.0.0&{SESSION}");
    let refused = soon(async {
        loop {
            let response = http.request("GET", &target, &UPGRADE, b"").await;
            if response.status != 101 {
                return response;
            }
            // The server has not noticed the last death yet; this is another.
            http = Http::connect(&server).await;
        }
    });
    assert_eq!(refused.await.status, 403);
    let mut line = Line::open(&server, Poll, SESSION).await;
    line.rejoin("7", "room:a").await;
    line.ping("7", "room:a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_connect_is_refused_a_known_session_too() {
    let server = Server::start().await;
    let mut line = Line::open(&server, WebSocket, SESSION).await;
    line.heartbeat().await;
    let target = format!("/socket/websocket?vsn=2.0.0&{SESSION}&reject=true");
    let refused = Http::connect(&server).await.request("GET", &target, &UPGRADE, b"").await;
    assert_eq!(refused.status, 403);
    line.heartbeat().await;
}

// Who gets no kept session.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_valid_id_and_a_socket_id_everything_is_as_phoenix_has_it() {
    let server = Server::start().await;
    let long = "a".repeat(65);
    for parameters in [
        "user_id=u1",
        "user_id=u1&received=0",
        "user_id=u1&session=",
        "user_id=u1&session=0123456789abcdefghijk",
        &format!("user_id=u1&session={long}"),
        "user_id=u1&session=0123456789abcdefghij.l&received=3",
        "user_id=u1&session=0123456789abcdefghij%20l",
        "user_id=u1&session[]=0123456789abcdefghijkl",
        "session=0123456789abcdefghijkl&received=0",
    ] {
        for transport in [WebSocket, Poll] {
            let mut client = Client::connect(&server, transport, Version::V2, parameters).await;
            client.send(r#"["1","1","room:a","phx_join",{}]"#).await;
            client.expect(r#"["1","1","room:a","phx_reply",{"status":"ok","response":{}}]"#).await;
            let joined = client.recv().await;
            assert!(joined.starts_with(r#"["1",null,"room:a","joined""#), "{parameters}: {joined}");
            client.send(r#"["1",null,"room:a","new_msg",{}]"#).await;
            client.expect(r#"[null,null,"room:a","new_msg",{}]"#).await;
            client.ping("1", "room:a").await;
            client.send(r#"["1","5","room:a","phx_leave",{}]"#).await;
            client.expect(r#"["1","5","room:a","phx_reply",{"status":"ok","response":{}}]"#).await;
            client.expect(r#"["1","1","room:a","phx_close",{}]"#).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_without_a_session_is_sent_no_pings() {
    let server = Server::start().await;
    let mut socket = RawWebSocket::member(&server).await;
    for _ in 0..3 {
        // Every frame that comes must be the reply.
        socket.expect_nothing().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_on_which_nothing_was_said_is_asked_nothing() {
    let server = Server::start().await;
    let mut line = Line::open(&server, WebSocket, SESSION).await;
    line.join("1", "room:a").await;
    line.cut().await;
    let mut line = Line::open(&server, WebSocket, SESSION).await;
    line.websocket().send_bytes(&masked(0x80 | PING, b"first")).await;
    line.websocket().expect_frame(PONG, b"first").await;
    line.rejoin("7", "room:a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_of_every_legal_length_are_taken() {
    let server = Server::start().await;
    for id in ["Az09_-Az09_-Az09_-Az09", &"a".repeat(64)] {
        let parameters = format!("user_id=u1&session={id}");
        let mut line = Line::open(&server, WebSocket, &parameters).await;
        line.join("1", "room:a").await;
        line.rejoin_deadline().await;
        line.cut().await;
        let mut line = Line::open(&server, WebSocket, &parameters).await;
        line.rejoin("7", "room:a").await;
        line.ping("7", "room:a").await;
    }
}

// Numbers and acknowledgement.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_stand_where_a_ref_would_be_null_and_count_one_by_one() {
    for transport in [WebSocket, Poll] {
        let server = Server::start().await;
        let mut line = Line::open(&server, transport, &parameters(true, 0)).await;
        line.join("1", "room:a").await;
        assert_eq!(line.received(), 1);
        for number in 2..5 {
            server.broadcast("room:a", "new_msg", r#"{"n":1}"#).await;
            line.expect(&new_msg("room:a", 1)).await;
            assert_eq!(line.received(), number);
            line.ping("1", "room:a").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_session_of_a_client_that_counts_goes_on_from_its_number() {
    let server = Server::start().await;
    let mut line = Line::open(&server, WebSocket, &parameters(true, 41)).await;
    line.join("1", "room:a").await;
    assert_eq!(line.received(), 42);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_number_a_client_may_name_does_harm() {
    let server = Server::start().await;
    for (index, received) in
        ["18446744073709551615", "9007199254740991", "-1", "1e3", "", "x"].iter().enumerate()
    {
        let parameters = format!(
            "vsn=2.0.0&user_id=u1&session=0123456789abcdefghij{index}x&received={received}"
        );
        let mut socket = RawWebSocket::open(&server, &parameters).await;
        socket.send_text(r#"["1","1","room:a","phx_join",{}]"#).await;
        for _ in 0..3 {
            socket.send_text(r#"["1",null,"room:a","push_me",{}]"#).await;
        }
        let mut pushed = 0;
        while pushed < 3 {
            let frame = socket.frame().await.expect("a session that lives");
            pushed += usize::from(String::from_utf8_lossy(&frame.payload).contains("pushed"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_binary_message_takes_a_number_too() {
    for transport in [WebSocket, Poll] {
        let server = Server::start().await;
        let parameters = format!("{}&binary=base64", parameters(true, 0));
        let mut line = Line::open(&server, transport, &parameters).await;
        line.join("1", "room:a").await;
        let mut other = witness(&server, "room:a").await;
        other.send_binary(&binary::client_push("1", "2", "room:a", "new_msg", &[0, 255])).await;
        line.expect_binary(&binary::broadcast("room:a", "new_msg", &[0, 255])).await;
        server.broadcast("room:a", "new_msg", r#"{"n":1}"#).await;
        line.expect(&new_msg("room:a", 1)).await;
        assert_eq!(line.received(), 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_binary_message_is_replayed_in_its_place() {
    let server = Server::start().await;
    let with_binary = |received| format!("{}&binary=base64", parameters(true, received));
    for (from, to) in [(WebSocket, Poll), (Poll, WebSocket)] {
        let mut line = Line::open(&server, from, &with_binary(0)).await;
        line.join("1", "room:a").await;
        let mut other = witness(&server, "room:a").await;
        let received = line.cut().await;
        let push = |byte| binary::client_push("1", "2", "room:a", "new_msg", &[byte]);
        other.send_binary(&push(1)).await;
        other.send(r#"["1",null,"room:a","new_msg",{"n":1}]"#).await;
        other.send_binary(&push(2)).await;
        other.expect_binary(&binary::broadcast("room:a", "new_msg", &[1])).await;
        other.expect(&new_msg("room:a", 1)).await;
        other.expect_binary(&binary::broadcast("room:a", "new_msg", &[2])).await;
        let mut line = Line::open(&server, to, &with_binary(received)).await;
        line.rejoin("7", "room:a").await;
        line.expect_binary(&binary::broadcast("room:a", "new_msg", &[1])).await;
        line.expect(&new_msg("room:a", 1)).await;
        line.expect_binary(&binary::broadcast("room:a", "new_msg", &[2])).await;
        // Had it been counted otherwise, one of them would be missing or come twice.
        let mut line = Line::open(&server, from, &with_binary(line.received())).await;
        line.rejoin("8", "room:a").await;
        line.ping("8", "room:a").await;
        server.disconnect("user_socket:u1").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn received_acknowledges_exactly_what_it_covers() {
    for (from, to) in [(WebSocket, WebSocket), (WebSocket, Poll), (Poll, WebSocket), (Poll, Poll)] {
        let server = Server::start().await;
        let mut line = Line::open(&server, from, &parameters(true, 0)).await;
        line.join("1", "room:a").await;
        for number in 1..=5 {
            server.broadcast("room:a", "new_msg", &format!(r#"{{"n":{number}}}"#)).await;
            line.expect(&new_msg("room:a", number)).await;
        }
        // Its page has seen the third, wherever the others were lost: `joined` is number 1.
        line.cut().await;
        let mut line = Line::open(&server, to, &parameters(true, 4)).await;
        line.rejoin("7", "room:a").await;
        line.expect(&new_msg("room:a", 4)).await;
        line.expect(&new_msg("room:a", 5)).await;
        line.ping("7", "room:a").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_the_network_has_acknowledged_is_sent_again_if_received_says_less() {
    let server = Server::start().await;
    let mut line = Line::open(&server, WebSocket, &parameters(true, 0)).await;
    line.join("1", "room:a").await;
    for number in 1..=3 {
        server.broadcast("room:a", "new_msg", &format!(r#"{{"n":{number}}}"#)).await;
        line.expect(&new_msg("room:a", number)).await;
    }
    line.pong().await;
    line.cut().await;
    let mut line = Line::open(&server, WebSocket, &parameters(true, 2)).await;
    line.rejoin("7", "room:a").await;
    line.expect(&new_msg("room:a", 2)).await;
    line.expect(&new_msg("room:a", 3)).await;
    line.ping("7", "room:a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_has_not_seen_what_is_no_longer_kept_gets_a_new_session() {
    for to in [WebSocket, Poll] {
        let server = Server::start().await;
        let mut older = Line::open(&server, WebSocket, &parameters(true, 0)).await;
        older.join("1", "room:a").await;
        let large = format!(r#""{}""#, "x".repeat(100_000));
        for _ in 0..5 {
            server.broadcast("room:a", "new_msg", &large).await;
            older.recv().await;
        }
        older.pong().await;
        // The server has read the Pong. What it acknowledged is more than is kept for a page that has
        // seen only the first.
        older.heartbeat().await;
        older.pong().await;
        let mut line = Line::open(&server, to, &parameters(true, 2)).await;
        line.join("7", "room:a").await;
        assert_eq!(line.received(), 3);
        older.websocket().expect_close(1012).await;
    }
}

/// The last words of a connection that a client without numbers has lost.
async fn read_one(server: &Server) -> Line {
    let mut line = Line::open(server, WebSocket, SESSION).await;
    line.join("1", "room:a").await;
    line.pong().await;
    // The server has read the Pong: it answers what came after it.
    line.heartbeat().await;
    server.broadcast("room:a", "new_msg", r#"{"n":1}"#).await;
    line.expect(&new_msg("room:a", 1)).await;
    line
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_pong_has_acknowledged_is_not_sent_again_over_a_line_that_was_cut() {
    let server = Server::start().await;
    let mut line = read_one(&server).await;
    line.pong().await;
    line.heartbeat().await;
    line.cut().await;
    let mut line = Line::open(&server, WebSocket, SESSION).await;
    line.rejoin("7", "room:a").await;
    line.ping("7", "room:a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_pong_has_acknowledged_is_sent_again() {
    let server = Server::start().await;
    read_one(&server).await.cut().await;
    let mut line = Line::open(&server, WebSocket, SESSION).await;
    line.rejoin("7", "room:a").await;
    line.expect(&new_msg("room:a", 1)).await;
    line.ping("7", "room:a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_a_pong_has_acknowledged_is_sent_again_if_the_client_closed() {
    let server = Server::start().await;
    let mut line = read_one(&server).await;
    line.pong().await;
    line.close().await;
    let mut line = Line::open(&server, WebSocket, SESSION).await;
    line.rejoin("7", "room:a").await;
    line.skip_to(&new_msg("room:a", 1)).await;
    line.ping("7", "room:a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_a_pong_has_acknowledged_is_sent_again_if_the_client_seemed_alive() {
    let server = Server::start().await;
    let mut older = read_one(&server).await;
    older.pong().await;
    older.heartbeat().await;
    let mut line = Line::open(&server, WebSocket, SESSION).await;
    line.rejoin("7", "room:a").await;
    line.skip_to(&new_msg("room:a", 1)).await;
    line.ping("7", "room:a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_heartbeat_has_proven_is_not_sent_again_even_if_the_client_closed() {
    let server = Server::start().await;
    let mut line = read_one(&server).await;
    line.rejoin_deadline().await;
    line.close().await;
    let mut line = Line::open(&server, WebSocket, SESSION).await;
    line.rejoin("7", "room:a").await;
    line.ping("7", "room:a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_older_protocol_is_numbered_too() {
    let server = Server::start().await;
    for received in [0, 1] {
        let parameters = format!("vsn=1.0.0&{SESSION}&received={received}");
        let mut socket = RawWebSocket::open(&server, &parameters).await;
        let join = r#"{"topic":"room:a","event":"phx_join","payload":{},"ref":"1"}"#;
        socket.send_text(join).await;
        let reply = r#"{"ref":"1","event":"phx_reply","payload":{"status":"ok","response":{}},"topic":"room:a"}"#;
        let next = match received {
            0 => r#"{"ref":"s:1","event":"joined","payload":{"user_id":"u1"},"topic":"room:a"}"#,
            _ => r#"{"ref":"s:2","event":"new_msg","payload":{"n":1},"topic":"room:a"}"#,
        };
        for expected in [reply, next] {
            let mut frame = socket.frame().await.expect("a message");
            while frame.opcode == PING {
                frame = socket.frame().await.expect("a message");
            }
            assert_eq!(String::from_utf8_lossy(&frame.payload), expected);
        }
        socket.hang_up().await;
        server.broadcast("room:a", "new_msg", r#"{"n":1}"#).await;
    }
}

// Repeated requests.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_that_is_repeated_gets_the_same_answer_again() {
    let server = Server::start().await;
    let mut session = LongPoll::open(&server, &format!("vsn=2.0.0&{}", parameters(true, 0))).await;
    session.post(JSON, r#"["1","1","room:a","phx_join",{}]"#).await;
    session.post(JSON, r#"["1","2","room:a","ping",{}]"#).await;
    let mut messages = json!([]);
    while messages.as_array().map_or(0, Vec::len) < 3 {
        // Each with the first token: all that was said until now, once more.
        messages = session.beside(&server).await.poll().await["messages"].take();
    }
    let joined = r#"[null,"s:1","room:a","joined",{"user_id":"u1"}]"#;
    assert_eq!(messages, json!([ok("1", "room:a"), joined, ok("2", "room:a")]));
    assert_eq!(json!(session.received(3).await), messages);
    server.broadcast("room:a", "new_msg", r#"{"n":1}"#).await;
    assert_eq!(session.received(1).await, [r#"[null,"s:2","room:a","new_msg",{"n":1}]"#]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_that_is_repeated_is_handled_once() {
    let server = Server::start().await;
    let mut line = Line::open(&server, Poll, SESSION).await;
    line.join("1", "room:a").await;
    let body = [r#"["1","2","room:a","new_msg",{"n":1}]"#, r#"["1","3","room:a","ping",{}]"#];
    for _ in 0..3 {
        let answer = line.longpoll().post(NDJSON, &body.join("\n")).await;
        assert_eq!(answer, json!({"status": 200}));
    }
    line.expect(&new_msg("room:a", 1)).await;
    line.expect(&ok("3", "room:a")).await;
    line.ping("1", "room:a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_repeats_nothing_and_a_ref_that_comes_again_is_another_message() {
    let server = Server::start().await;
    let mut line = Line::open(&server, WebSocket, SESSION).await;
    line.join("1", "room:a").await;
    for number in 1..=3 {
        line.send(&format!(r#"["1","2","room:a","new_msg",{{"n":{number}}}]"#)).await;
        line.expect(&new_msg("room:a", number)).await;
    }
}

// Control goes first.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heartbeat_overtakes_a_replay_to_a_client_that_reads_slowly() {
    let server = Server::start().await;
    let mut line = Line::open(&server, WebSocket, SESSION).await;
    line.join("1", "room:a").await;
    line.rejoin_deadline().await;
    line.cut().await;
    let payload = format!(r#""{}""#, "x".repeat(60_000));
    for _ in 0..16 {
        server.broadcast("room:a", "new_msg", &payload).await;
    }
    let mut socket = RawWebSocket::open_narrow(&server, &format!("vsn=2.0.0&{SESSION}")).await;
    socket.send_text(r#"["7","7","room:a","phx_join",{}]"#).await;
    let mut before = 0;
    let mut after = 0;
    let mut beaten = false;
    while before + after < 16 {
        let frame = socket.frame().await.expect("a frame");
        if frame.opcode == PING {
            socket.send_bytes(&masked(0x80 | PONG, &frame.payload)).await;
        } else if frame.payload.len() > 60_000 {
            if before == 0 {
                socket.send_text(r#"[null,"8","phoenix","heartbeat",{}]"#).await;
            }
            if beaten { after += 1 } else { before += 1 }
        } else {
            beaten |= frame.payload == ok("8", "phoenix").as_bytes();
        }
    }
    assert!(beaten && before <= 6, "{before} messages of 60 kB came before the heartbeat's reply");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reply_of_a_join_comes_before_all_that_waits() {
    let server = Server::start().await;
    let mut line = Line::open(&server, WebSocket, SESSION).await;
    line.join("1", "room:a").await;
    line.join("2", "room:b").await;
    line.rejoin_deadline().await;
    line.cut().await;
    let payload = format!(r#""{}""#, "x".repeat(60_000));
    for _ in 0..16 {
        server.broadcast("room:a", "new_msg", &payload).await;
    }
    let mut socket = RawWebSocket::open_narrow(&server, &format!("vsn=2.0.0&{SESSION}")).await;
    socket.send_text(r#"["7","7","room:a","phx_join",{}]"#).await;
    let mut before = 0;
    loop {
        let frame = socket.frame().await.expect("a frame");
        if frame.opcode == TEXT && frame.payload.len() > 60_000 {
            if before == 0 {
                socket.send_text(r#"["8","8","room:b","phx_join",{}]"#).await;
            }
            before += 1;
        } else if frame.payload == ok("8", "room:b").as_bytes() {
            break;
        }
    }
    assert!(before <= 6, "{before} messages of 60 kB came before the join's reply");
}

// Ends.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disconnect_by_id_closes_the_connection_and_ends_the_session() {
    let server = Server::start().await;
    let mut line = Line::open(&server, WebSocket, SESSION).await;
    line.join("1", "room:a").await;
    line.pong().await;
    server.disconnect("user_socket:u1").await;
    line.websocket().expect_close(1001).await;
    let mut line = Line::open(&server, WebSocket, SESSION).await;
    line.join("7", "room:a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disconnect_by_id_answers_a_waiting_poll_and_the_next_is_told_500_once() {
    let server = Server::start().await;
    let mut session = LongPoll::open(&server, &format!("vsn=2.0.0&{SESSION}")).await;
    let mut held = session.held_poll(&server).await;
    server.disconnect("user_socket:u1").await;
    let answer = held.answer().await;
    assert_eq!((&answer["status"], &answer["messages"]), (&json!(204), &json!([])), "{answer}");
    assert_eq!(session.poll().await, json!({"status": 500}));
    session.expect_gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_does_not_read_closes_with_1013_and_the_session_begins_anew() {
    let server = Server::start().await;
    let mut socket = RawWebSocket::open_narrow(&server, &format!("vsn=2.0.0&{SESSION}")).await;
    socket.send_text(r#"["1","1","room:a","phx_join",{}]"#).await;
    let payload = format!(r#""{}""#, "x".repeat(300_000));
    for _ in 0..12 {
        server.broadcast("room:a", "new_msg", &payload).await;
    }
    let mut last = None;
    while let Some(frame) = socket.frame().await {
        last = Some(frame);
    }
    let last = last.expect("a close");
    assert_eq!((last.opcode, &*last.payload), (CLOSE, &1013_u16.to_be_bytes()[..]));
    let mut line = Line::open(&server, WebSocket, SESSION).await;
    line.join("7", "room:a").await;
    line.ping("7", "room:a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_message_ends_the_session() {
    let server = Server::start().await;
    let mut line = Line::open(&server, WebSocket, SESSION).await;
    line.join("1", "room:a").await;
    line.pong().await;
    line.websocket().send_text("not json").await;
    line.websocket().expect_close(1011).await;
    let mut line = Line::open(&server, WebSocket, SESSION).await;
    line.join("7", "room:a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_ends_parked_sessions_at_once() {
    let mut server = Server::start().await;
    let mut line = Line::open(&server, WebSocket, SESSION).await;
    line.join("1", "room:a").await;
    line.cut().await;
    let began = Instant::now();
    server.shut_down();
    server.ended().await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_closes_a_kept_websocket_with_1012() {
    let mut server = Server::start().await;
    let mut line = Line::open(&server, WebSocket, SESSION).await;
    line.join("1", "room:a").await;
    line.pong().await;
    server.shut_down();
    line.websocket().expect_close(1012).await;
    drop(line);
    server.ended().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_answers_a_waiting_poll_of_a_kept_session() {
    let mut server = Server::start().await;
    let session = LongPoll::open(&server, &format!("vsn=2.0.0&{SESSION}")).await;
    let mut held = session.held_poll(&server).await;
    server.shut_down();
    let answer = held.answer().await;
    assert_eq!((&answer["status"], &answer["messages"]), (&json!(204), &json!([])), "{answer}");
    server.ended().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_whose_token_was_refused_heals_the_client_that_believes_to_be_joined() {
    let server = Server::start().await;
    let mut session = LongPoll::open(&server, "vsn=2.0.0").await;
    // As after a restart of the server.
    session.token = LongPoll::open(&Server::start().await, "vsn=2.0.0").await.token;
    session.expect_gone().await;
    session.post(JSON, r#"["1","5","room:a","ping",{}]"#).await;
    let got = session.received(2).await;
    assert_eq!(
        got[0],
        r#"[null,"5","room:a","phx_reply",{"status":"error","response":{"reason":"unmatched topic"}}]"#
    );
    assert!(got[1].starts_with(r#"["1","1","room:a","phx_error","#), "{got:?}");
}

// What the application sees.

/// A channel that tells what becomes of it.
struct Watched(Watcher);

type Watcher = mpsc::UnboundedSender<String>;

impl Channel for Watched {
    type Assigns = Watcher;
    type Info = ();

    async fn join(
        topic: &str,
        pace: Payload,
        it: &Socket<Self>,
    ) -> Result<Joined<Self>, JoinError> {
        tell(it.assigns(), format!("join {topic}"));
        if pace.parse::<&str>().unwrap_or_default() == "nap" {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(Self(it.assigns().clone()).into())
    }

    async fn resume(
        &mut self,
        payload: Payload,
        it: &Socket<Self>,
    ) -> Result<Option<Payload>, JoinError> {
        tell(it.assigns(), format!("resume {}", it.topic()));
        match payload.parse::<&str>().unwrap_or_default() {
            "refuse" => Err(JoinError::reason("no longer")),
            "answer" => Ok(Some(json!({"resumed": true}).into())),
            _ => Ok(None),
        }
    }

    async fn handle_in(&mut self, _: &str, payload: Payload, _: &Socket<Self>) -> Result<Reply> {
        Ok(Reply::ok(payload))
    }

    async fn terminate(&mut self, reason: Reason, it: &Socket<Self>) {
        tell(it.assigns(), format!("terminate {} {reason:?}", it.topic()));
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        tell(&self.0, "drop".to_owned());
    }
}

fn tell(watcher: &Watcher, what: String) {
    let _ = watcher.send(what);
}

struct Watch {
    server: Server,
    endpoint: Endpoint<Watcher>,
    told: mpsc::UnboundedReceiver<String>,
}

impl Watch {
    async fn start(continuity: ResumeConfig) -> Self {
        let (watcher, told) = mpsc::unbounded_channel();
        let endpoint = Endpoint::builder(move |_| {
            let watcher = watcher.clone();
            async move { Ok(watcher) }
        })
        .id(|_| Some("the one".to_owned()))
        .channel::<Watched>("room:*")
        .long_poll(LongPollConfig::default().poll_timeout(Duration::from_millis(500)))
        .resume(continuity)
        .build();
        let app = axum::Router::new().layer(endpoint.layer("/socket"));
        let server =
            Server::running(|listener, _| async { axum::serve(listener, app).await }).await;
        Self { server, endpoint, told }
    }

    async fn line(&self, transport: Transport) -> Line {
        Line::open(&self.server, transport, SESSION).await
    }

    #[track_caller]
    fn expect(&mut self, what: &str) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        let told = soon(self.told.recv());
        async move { assert_eq!(told.await.as_deref(), Some(what), "{caller}") }
    }

    #[track_caller]
    fn expect_silence(&mut self) {
        assert!(self.told.is_empty(), "{:?}", self.told.try_recv());
    }

    /// Waits until the endpoint has no session any more.
    async fn expect_no_session(&self) {
        soon(async {
            while self.endpoint.sessions().total() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

fn brief_ttl() -> ResumeConfig {
    ResumeConfig { session_ttl: Duration::from_millis(200), ..Default::default() }
}

fn brief_grace() -> ResumeConfig {
    ResumeConfig { rejoin_grace: Duration::from_millis(300), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_channel_is_not_terminated_and_resumes() {
    for transport in [WebSocket, Poll] {
        let mut watch = Watch::start(ResumeConfig::default()).await;
        let mut line = watch.line(transport).await;
        line.rejoin("1", "room:a").await;
        watch.expect("join room:a").await;
        line.rejoin_deadline().await;
        line.cut().await;
        let mut line = watch.line(transport).await;
        line.rejoin("7", "room:a").await;
        watch.expect("resume room:a").await;
        watch.expect_silence();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resume_may_answer_otherwise() {
    let watch = Watch::start(ResumeConfig::default()).await;
    watch.line(WebSocket).await.rejoin("1", "room:a").await;
    let mut line = watch.line(WebSocket).await;
    line.send(r#"["7","7","room:a","phx_join","answer"]"#).await;
    line.expect(r#"[null,"7","room:a","phx_reply",{"status":"ok","response":{"resumed":true}}]"#)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resume_that_is_refused_ends_the_channel_with_an_error() {
    let mut watch = Watch::start(ResumeConfig::default()).await;
    watch.line(WebSocket).await.rejoin("1", "room:a").await;
    watch.expect("join room:a").await;
    let mut line = watch.line(WebSocket).await;
    watch.endpoint.broadcast("room:a", "secret", json!({}));
    line.send(r#"["7","7","room:a","phx_join","refuse"]"#).await;
    line.expect(
        r#"[null,"7","room:a","phx_reply",{"status":"error","response":{"reason":"no longer"}}]"#,
    )
    .await;
    watch.expect("resume room:a").await;
    watch.expect("terminate room:a Closed").await;
    watch.expect("drop").await;
    line.rejoin("8", "room:a").await;
    watch.expect("join room:a").await;
    line.heartbeat().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_that_comes_while_the_first_still_runs_waits_for_it() {
    for transport in [WebSocket, Poll] {
        let mut watch = Watch::start(ResumeConfig::default()).await;
        let mut line = watch.line(transport).await;
        line.send(r#"["1","1","room:a","phx_join","nap"]"#).await;
        watch.expect("join room:a").await;
        line.cut().await;
        let mut line = watch.line(transport).await;
        line.rejoin("7", "room:a").await;
        watch.expect("resume room:a").await;
        watch.endpoint.broadcast("room:a", "new_msg", json!({"n": 1}));
        line.expect(&new_msg("room:a", 1)).await;
        line.ping("7", "room:a").await;
        watch.expect_silence();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_repeated_on_one_connection_while_the_first_runs_is_answered_too() {
    let mut watch = Watch::start(ResumeConfig::default()).await;
    let mut line = watch.line(WebSocket).await;
    line.send_all(&[
        r#"["1","1","room:a","phx_join","nap"]"#,
        r#"["2","2","room:a","phx_join","nap"]"#,
    ])
    .await;
    line.expect(&ok("1", "room:a")).await;
    line.expect(&ok("2", "room:a")).await;
    line.ping("2", "room:a").await;
    watch.expect("join room:a").await;
    watch.expect("resume room:a").await;
    watch.expect_silence();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_not_joined_again_in_time_ends() {
    for transport in [WebSocket, Poll] {
        let mut watch = Watch::start(brief_grace()).await;
        let mut line = watch.line(transport).await;
        line.rejoin("1", "room:a").await;
        line.rejoin("2", "room:b").await;
        line.rejoin_deadline().await;
        line.cut().await;
        let mut line = watch.line(transport).await;
        line.rejoin("7", "room:a").await;
        for expected in ["join room:a", "join room:b", "resume room:a", "terminate room:b Closed"] {
            watch.expect(expected).await;
        }
        watch.expect("drop").await;
        line.rejoin("8", "room:b").await;
        watch.expect("join room:b").await;
        line.ping("7", "room:a").await;
        watch.expect_silence();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_a_timed_out_join_has_left_ends_if_nobody_joins_it() {
    let mut watch = Watch::start(brief_grace()).await;
    let mut line = watch.line(WebSocket).await;
    line.send_all(&[r#"["1","1","room:a","phx_join",{}]"#, r#"["1","2","room:a","phx_leave",{}]"#])
        .await;
    watch.expect("join room:a").await;
    watch.expect("terminate room:a Closed").await;
    watch.expect("drop").await;
    line.skip_to(&ok("2", "room:a")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_session_ends_when_its_time_is_over_and_the_next_join_is_ordinary() {
    for transport in [WebSocket, Poll] {
        let mut watch = Watch::start(brief_ttl()).await;
        let mut line = watch.line(transport).await;
        line.rejoin("1", "room:a").await;
        watch.expect("join room:a").await;
        line.rejoin_deadline().await;
        line.cut().await;
        watch.expect("terminate room:a Closed").await;
        watch.expect("drop").await;
        watch.expect_no_session().await;
        let mut line = watch.line(transport).await;
        line.rejoin("7", "room:a").await;
        watch.expect("join room:a").await;
        line.heartbeat().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_used_does_not_end() {
    for transport in [WebSocket, Poll] {
        let mut watch = Watch::start(brief_ttl()).await;
        let mut line = watch.line(transport).await;
        line.rejoin("1", "room:a").await;
        watch.expect("join room:a").await;
        // Longer than the time of a parked session, however the server counts.
        let until = Instant::now() + Duration::from_millis(1500);
        while Instant::now() < until {
            line.heartbeat().await;
        }
        watch.expect_silence();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_token_of_a_session_that_has_ended_is_told_500_once() {
    let watch = Watch::start(brief_ttl()).await;
    let mut session = LongPoll::open(&watch.server, &format!("vsn=2.0.0&{SESSION}")).await;
    session.post(JSON, r#"["1","1","room:a","phx_join",{}]"#).await;
    session.received(1).await;
    watch.expect_no_session().await;
    assert_eq!(session.poll().await, json!({"status": 500}));
    session.expect_gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_was_never_used_leaves_no_session_behind() {
    let watch = Watch::start(brief_ttl()).await;
    Line::open(&watch.server, Poll, SESSION).await;
    watch.expect_no_session().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_counts_once_however_often_it_is_taken_up() {
    let watch = Watch::start(ResumeConfig::default()).await;
    for transport in [WebSocket, Poll, WebSocket, Poll] {
        watch.line(transport).await.heartbeat().await;
    }
    assert_eq!(watch.endpoint.sessions().total(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_of_zero_keeps_no_session() {
    let off = ResumeConfig { session_ttl: Duration::ZERO, ..Default::default() };
    let mut watch = Watch::start(off).await;
    let mut client = Client::connect(&watch.server, WebSocket, Version::V2, SESSION).await;
    client.send(r#"["1","1","room:a","phx_join",{}]"#).await;
    client.expect(r#"["1","1","room:a","phx_reply",{"status":"ok","response":{}}]"#).await;
    drop(client);
    watch.expect("join room:a").await;
    watch.expect("terminate room:a Closed").await;
}
