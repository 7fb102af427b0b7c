//! Sessions whose client asks that each push is handled once.

use super::{Handover, SESSION, new_msg, parameters, witness};
use crate::support::Transport::{LongPoll as Poll, WebSocket};
use crate::support::connection::ok;
use crate::support::longpoll::NDJSON;
use crate::support::{Client, Connection, Server, Transport, Version};

handovers![
    a_push_that_was_handled_is_not_handled_again,
    the_reply_to_a_push_that_is_repeated_comes_once,
    a_push_that_did_not_arrive_is_handled_after_later_ones_of_another_topic,
];

impl Handover {
    async fn once(&self, transport: Transport, received: u64) -> Connection {
        let parameters = format!("{}&pushes=once", parameters(self.numbered, received));
        Connection::with_version(self.version, &self.server, transport, &parameters).await
    }

    /// Opens the first connection, and joins `room:a`.
    async fn once_member(&self) -> Connection {
        let mut conn = self.once(self.from, 0).await;
        conn.expect(&handled(false, "[]")).await;
        conn.join("1", "room:a").await;
        conn
    }

    /// Loses the connection, and returns with the other transport.
    async fn return_once(&self, conn: Connection, refs: &str) -> Connection {
        let received = conn.cut().await;
        let mut conn = self.once(self.to, received).await;
        conn.expect(&handled(true, refs)).await;
        conn
    }
}

fn handled(is_resumed: bool, refs: &str) -> String {
    reply_handled("handled", is_resumed, refs)
}

fn reply_handled(reference: &str, is_resumed: bool, refs: &str) -> String {
    format!(
        r#"[null,"{reference}","phoenix","phx_reply",{{"status":"ok","response":{{"resumed":{is_resumed},"refs":{refs}}}}}]"#
    )
}

async fn a_push_that_was_handled_is_not_handled_again(handover: Handover) {
    let mut witness = witness(&handover.server, "room:a").await;
    let mut conn = handover.once_member().await;
    conn.send(r#"["1","2","room:a","new_msg",{"n":1}]"#).await;
    conn.expect(&new_msg("room:a", 1)).await;
    handover.acknowledge_all(&mut conn).await;
    let mut conn = handover.return_once(conn, "[[1,2]]").await;
    conn.begin_join("7", "room:a").await;
    conn.expect(&ok("7", "room:a")).await;
    conn.send_all(&[
        r#"["7","2","room:a","new_msg",{"n":1}]"#,
        r#"["7","8","room:a","new_msg",{"n":2}]"#,
        r#"["7","8","room:a","new_msg",{"n":2}]"#,
    ])
    .await;
    conn.expect(&new_msg("room:a", 2)).await;
    conn.ping("7", "room:a").await;
    witness.expect(&new_msg("room:a", 1)).await;
    if handover.numbered {
        witness.expect(&new_msg("room:a", 0)).await;
    }
    witness.expect(&new_msg("room:a", 2)).await;
    witness.heartbeat().await;
}

async fn the_reply_to_a_push_that_is_repeated_comes_once(handover: Handover) {
    let mut conn = handover.once_member().await;
    conn.send(r#"["1","2","room:a","slow",{"ms":400}]"#).await;
    conn.ping("1", "room:a").await;
    handover.acknowledge_all(&mut conn).await;
    let received = conn.cut().await;
    let mut conn = handover.once(handover.to, received).await;
    conn.recv().await;
    conn.rejoin("7", "room:a").await;
    conn.send(r#"["7","2","room:a","slow",{"ms":400}]"#).await;
    let reply = r#"[null,"2","room:a","phx_reply",{"status":"ok","response":{"ms":400}}]"#;
    conn.expect(reply).await;
    conn.send(r#"["7","2","room:a","slow",{"ms":400}]"#).await;
    conn.ping("7", "room:a").await;
}

async fn a_push_that_did_not_arrive_is_handled_after_later_ones_of_another_topic(
    handover: Handover,
) {
    let mut conn = handover.once_member().await;
    conn.join("2", "room:b").await;
    conn.send(r#"["1","3","room:a","ping",{}]"#).await;
    conn.expect(&ok("3", "room:a")).await;
    // 4 is lost.
    handover.acknowledge_all(&mut conn).await;
    let mut conn = handover.return_once(conn, "[[1,3]]").await;
    conn.rejoin("10", "room:a").await;
    conn.send(r#"["10","11","room:a","ping",{}]"#).await;
    conn.expect(&ok("11", "room:a")).await;
    conn.rejoin("12", "room:b").await;
    conn.send(r#"["12","4","room:b","ping",{}]"#).await;
    conn.expect(&ok("4", "room:b")).await;
    conn.send(r#"[null,"13","phoenix","handled",{}]"#).await;
    conn.expect(&reply_handled("13", true, "[[1,4],[10,12]]")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_no_channel_has_taken_is_handled_when_it_comes_again() {
    let server = Server::start().await;
    for transport in [WebSocket, Poll] {
        let parameters = format!("user_id=u1&session={transport:?}0123456789abcdef&pushes=once");
        let mut conn = Connection::open(&server, transport, &parameters).await;
        conn.expect(&handled(false, "[]")).await;
        conn.send(r#"[null,"2","room:a","ping",{}]"#).await;
        conn.expect(&unmatched("2", "room:a")).await;
        conn.join("3", "room:a").await;
        // Its join_ref is stale, as that of a request which was overtaken by a join.
        conn.send(r#"["1","4","room:a","ping",{}]"#).await;
        conn.send(r#"["3","4","room:a","ping",{}]"#).await;
        conn.expect(&ok("4", "room:a")).await;
        conn.send(r#"["3","2","room:a","ping",{}]"#).await;
        conn.expect(&ok("2", "room:a")).await;
        conn.send(r#"[null,"handled","phoenix","handled",{}]"#).await;
        conn.expect(&handled(true, "[[2,4]]")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refs_that_are_no_numbers_are_not_counted() {
    let server = Server::start().await;
    for transport in [WebSocket, Poll] {
        let parameters = format!("user_id=u1&session={transport:?}0123456789abcdef&pushes=once");
        let mut conn = Connection::open(&server, transport, &parameters).await;
        conn.expect(&handled(false, "[]")).await;
        conn.join("j", "room:a").await;
        for reference in ["x", "99999999999999999999", "01"] {
            conn.send(&format!(r#"["j","{reference}","room:a","ping",{{}}]"#)).await;
            conn.expect(&ok(reference, "room:a")).await;
        }
        for asked in ["handled", "handled"] {
            conn.send(&format!(r#"[null,"{asked}","phoenix","handled",{{}}]"#)).await;
            conn.expect(&handled(true, "[]")).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_post_is_handled_once_on_any_connection() {
    let server = Server::start().await;
    let parameters = format!("user_id=u1&{ONCE}");
    let mut conn = Connection::open(&server, Poll, &parameters).await;
    conn.expect(&handled(false, "[]")).await;
    conn.join("1", "room:a").await;
    let body = [r#"[null,"3","room:a","new_msg",{"n":3}]"#, r#"[null,"2","room:a","ping",{}]"#];
    let body = body.join("\n");
    for _ in 0..2 {
        conn.longpoll().post(NDJSON, &body).await;
    }
    conn.expect(&new_msg("room:a", 3)).await;
    conn.expect(&ok("2", "room:a")).await;
    conn.acknowledge_all().await;
    let mut conn = Connection::open(&server, Poll, &parameters).await;
    conn.expect(&handled(true, "[[1,3]]")).await;
    conn.rejoin("7", "room:a").await;
    conn.longpoll().post(NDJSON, &body).await;
    conn.ping("7", "room:a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_not_resumable_counts_nothing() {
    let server = Server::start().await;
    let mut anonymous = Client::connect(&server, WebSocket, Version::V2, ONCE).await;
    anonymous.join("1", "room:a").await;
    for _ in 0..2 {
        anonymous.send(r#"["1","2","room:a","ping",{}]"#).await;
        let reply = r#"["1","2","room:a","phx_reply",{"status":"ok","response":{}}]"#;
        anonymous.expect(reply).await;
    }
    anonymous.send(r#"[null,"handled","phoenix","handled",{}]"#).await;
    anonymous.expect(&unmatched("handled", "phoenix")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_whose_client_does_not_ask_counts_nothing() {
    let server = Server::start().await;
    let mut conn = Connection::open(&server, WebSocket, SESSION).await;
    conn.join("1", "room:a").await;
    for _ in 0..2 {
        conn.send(r#"["1","2","room:a","ping",{}]"#).await;
        conn.expect(&ok("2", "room:a")).await;
    }
    conn.send(r#"[null,"handled","phoenix","handled",{}]"#).await;
    conn.expect(&unmatched("handled", "phoenix")).await;
}

fn unmatched(reference: &str, topic: &str) -> String {
    format!(
        r#"[null,"{reference}","{topic}","phx_reply",{{"status":"error","response":{{"reason":"unmatched topic"}}}}]"#
    )
}

const ONCE: &str = "session=0123456789abcdefghijkl&pushes=once";
