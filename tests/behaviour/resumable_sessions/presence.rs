//! Presence of resumable sessions: a session stays present while its client is away, and the client
//! receives the state when it returns.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tower_channels::channel::Result;
use tower_channels::{
    Channel, Endpoint, Joined, Payload, Presence, PresenceChanges, PresenceConfig, PresenceDiff,
    ResumeConfig, Socket,
};

use super::{Handover, SESSION, new_msg, short_grace, short_ttl};
use crate::reference::Config;
use crate::support::Transport::{LongPoll as Poll, WebSocket};
use crate::support::connection::ok;
use crate::support::lobby::{Member, joins, leaves, phx_ref, renamed};
use crate::support::{Client, Connection, Server, Transport, Version};

handovers![
    others_see_no_leave_or_join_of_a_client_that_was_away,
    others_see_nothing_of_a_takeover,
    a_returning_client_receives_the_state_once_and_no_missed_diffs,
    other_missed_messages_of_the_lobby_are_replayed,
    an_unread_diff_is_not_sent_again,
    an_own_change_before_a_cut_is_in_the_state,
    diffs_follow_the_state,
    two_rejoins_in_a_row_send_the_state_and_keep_the_presence,
    a_leave_that_only_detaches_keeps_the_presence,
    each_return_sends_the_state_again,
    each_lobby_sends_its_state_at_its_own_rejoin,
    a_leave_after_the_return_ends_the_presence,
    after_a_crash_the_next_join_starts_a_new_presence,
    a_disconnect_while_away_ends_the_presence,
];

/// Joins a client without a resumable session that watches the lobby.
async fn watcher(server: &Server) -> Member {
    let client = Client::connect(server, WebSocket, Version::V2, "user_id=watcher").await;
    Member::join(client, "watcher", r#"{"name":"first"}"#).await
}

/// Joins a watcher and the first connection of a session, and returns both with the meta of the
/// session.
async fn watched(handover: &Handover) -> (Member, Connection, Value) {
    let mut watcher = watcher(&handover.server).await;
    let mut conn = handover.first().await;
    let meta = conn.join_lobby("u1").await;
    assert_eq!(watcher.diff().await, joins("u1", &[&meta]));
    conn.acknowledge_all().await;
    (watcher, conn, meta)
}

/// Expects that nothing is announced to anybody except a rename of the watcher.
async fn expect_nothing_else(watcher: &mut Member, conn: &mut Connection) {
    let old = watcher.meta.clone();
    let diff = watcher.rename("last").await;
    watcher.meta = renamed(&diff, "watcher", &old, "last");
    conn.diff(&diff).await;
    conn.heartbeat().await;
    watcher.client.heartbeat().await;
}

impl Connection {
    /// Expects this diff next.
    async fn diff(&mut self, diff: &Value) {
        assert_eq!(crate::support::lobby::diff(&self.recv().await), *diff);
    }
}

fn present(metas: [(&str, &Value); 2]) -> Value {
    let all = metas.map(|(key, meta)| (key.to_owned(), json!({ "metas": [meta] })));
    Value::Object(all.into_iter().collect())
}

async fn others_see_no_leave_or_join_of_a_client_that_was_away(handover: Handover) {
    let (mut watcher, conn, meta) = watched(&handover).await;
    let mut conn = handover.reconnect(conn.cut().await).await;
    conn.heartbeat().await;
    conn.rejoin("7", "lobby:a").await;
    assert_eq!(conn.state().await, present([("u1", &meta), ("watcher", &watcher.meta)]));
    expect_nothing_else(&mut watcher, &mut conn).await;
    conn.send(r#"["7","8","lobby:a","rename",{"name":"Ann"}]"#).await;
    conn.expect(&ok("8", "lobby:a")).await;
    let diff = watcher.diff().await;
    renamed(&diff, "u1", &meta, "Ann");
    conn.diff(&diff).await;
}

async fn others_see_nothing_of_a_takeover(handover: Handover) {
    let (mut watcher, older, meta) = watched(&handover).await;
    let mut conn = handover.reconnect(older.received()).await;
    conn.rejoin("7", "lobby:a").await;
    assert_eq!(conn.state().await, present([("u1", &meta), ("watcher", &watcher.meta)]));
    expect_nothing_else(&mut watcher, &mut conn).await;
}

async fn a_returning_client_receives_the_state_once_and_no_missed_diffs(handover: Handover) {
    let (mut watcher, conn, meta) = watched(&handover).await;
    let received = conn.cut().await;
    let guest = Client::connect(&handover.server, WebSocket, Version::V2, "user_id=guest").await;
    let guest = Member::join(guest, "guest", "{}").await;
    watcher.diff().await;
    for name in ["second", "third"] {
        let diff = watcher.rename(name).await;
        watcher.meta = renamed(&diff, "watcher", &watcher.meta, name);
    }
    drop(guest.client);
    assert_eq!(watcher.diff().await, leaves("guest", &[&guest.meta]));
    let mut conn = handover.reconnect(received).await;
    conn.heartbeat().await;
    conn.rejoin("7", "lobby:a").await;
    assert_eq!(conn.state().await, present([("u1", &meta), ("watcher", &watcher.meta)]));
    expect_nothing_else(&mut watcher, &mut conn).await;
}

async fn other_missed_messages_of_the_lobby_are_replayed(handover: Handover) {
    let (mut watcher, mut conn, meta) = watched(&handover).await;
    handover.broadcast("lobby:a", 1).await;
    watcher.client.expect(&new_msg("lobby:a", 1)).await;
    conn.expect(&new_msg("lobby:a", 1)).await;
    conn.acknowledge_all().await;
    let received = conn.cut().await;
    for number in 2..=4 {
        handover.broadcast("lobby:a", number).await;
        watcher.client.expect(&new_msg("lobby:a", number)).await;
        let diff = watcher.rename("new").await;
        watcher.meta = renamed(&diff, "watcher", &watcher.meta, "new");
    }
    let mut conn = handover.reconnect(received).await;
    conn.rejoin("7", "lobby:a").await;
    for number in 2..=4 {
        conn.expect(&new_msg("lobby:a", number)).await;
    }
    assert_eq!(conn.state().await, present([("u1", &meta), ("watcher", &watcher.meta)]));
    expect_nothing_else(&mut watcher, &mut conn).await;
}

async fn an_unread_diff_is_not_sent_again(handover: Handover) {
    let (mut watcher, conn, meta) = watched(&handover).await;
    handover.broadcast("lobby:a", 1).await;
    watcher.client.expect(&new_msg("lobby:a", 1)).await;
    let diff = watcher.rename("unread").await;
    watcher.meta = renamed(&diff, "watcher", &watcher.meta, "unread");
    let mut conn = handover.reconnect(conn.cut().await).await;
    conn.rejoin("7", "lobby:a").await;
    conn.expect(&new_msg("lobby:a", 1)).await;
    assert_eq!(conn.state().await, present([("u1", &meta), ("watcher", &watcher.meta)]));
    expect_nothing_else(&mut watcher, &mut conn).await;
}

async fn an_own_change_before_a_cut_is_in_the_state(handover: Handover) {
    let (mut watcher, mut conn, meta) = watched(&handover).await;
    conn.send(r#"["1","2","lobby:a","rename",{"name":"Ann"}]"#).await;
    let meta = renamed(&watcher.diff().await, "u1", &meta, "Ann");
    let mut conn = handover.reconnect(conn.cut().await).await;
    conn.rejoin("7", "lobby:a").await;
    conn.expect(&ok("2", "lobby:a")).await;
    assert_eq!(conn.state().await, present([("u1", &meta), ("watcher", &watcher.meta)]));
    expect_nothing_else(&mut watcher, &mut conn).await;
}

async fn diffs_follow_the_state(handover: Handover) {
    let (mut watcher, conn, _) = watched(&handover).await;
    let mut conn = handover.reconnect(conn.cut().await).await;
    conn.rejoin("7", "lobby:a").await;
    conn.state().await;
    for name in ["a", "b", "c"] {
        let diff = watcher.rename(name).await;
        conn.diff(&diff).await;
    }
    conn.heartbeat().await;
}

async fn two_rejoins_in_a_row_send_the_state_and_keep_the_presence(handover: Handover) {
    let (mut watcher, conn, meta) = watched(&handover).await;
    let received = conn.cut().await;
    handover.broadcast("lobby:a", 1).await;
    watcher.client.expect(&new_msg("lobby:a", 1)).await;
    let mut conn = handover.reconnect(received).await;
    conn.send_all(&[
        r#"["7","7","lobby:a","phx_join",{}]"#,
        r#"["8","8","lobby:a","phx_join",{}]"#,
    ])
    .await;
    let diff = watcher.rename("last").await;
    renamed(&diff, "watcher", &watcher.meta, "last");
    // There may be a second state, before or after the diff, which the first state may include.
    let (mut replies, mut others) = (Vec::new(), Vec::new());
    while replies.len() < 2 || !others.iter().any(|got: &String| got.contains("presence_state")) {
        let got = conn.recv().await;
        if got.contains("phx_reply") { replies.push(got) } else { others.push(got) }
    }
    assert_eq!(replies, [ok("7", "lobby:a"), ok("8", "lobby:a")]);
    assert_eq!(others.iter().filter(|got| **got == new_msg("lobby:a", 1)).count(), 1, "{others:?}");
    conn.send(r#"["8","9","lobby:a","rename",{"name":"Ann"}]"#).await;
    renamed(&watcher.diff().await, "u1", &meta, "Ann");
    conn.skip_to(&ok("9", "lobby:a")).await;
}

async fn a_leave_that_only_detaches_keeps_the_presence(handover: Handover) {
    let (mut watcher, conn, meta) = watched(&handover).await;
    let mut conn = handover.reconnect(conn.cut().await).await;
    conn.begin_join("7", "lobby:a").await;
    // Longer than a page may take to leave what it has just joined, on a line that acknowledges nothing.
    tokio::time::sleep(Duration::from_millis(5200)).await;
    conn.send_all(&[
        r#"["7","8","lobby:a","phx_leave",{}]"#,
        r#"["9","9","lobby:a","phx_join",{}]"#,
    ])
    .await;
    conn.skip_to(&ok("9", "lobby:a")).await;
    assert_eq!(conn.state().await, present([("u1", &meta), ("watcher", &watcher.meta)]));
    let old = watcher.meta.clone();
    renamed(&watcher.rename("last").await, "watcher", &old, "last");
}

async fn each_return_sends_the_state_again(handover: Handover) {
    let (mut watcher, conn, meta) = watched(&handover).await;
    let mut received = conn.cut().await;
    for round in 0..3 {
        let diff = watcher.rename("new").await;
        watcher.meta = renamed(&diff, "watcher", &watcher.meta, "new");
        let transport = if round % 2 == 0 { handover.to } else { handover.from };
        let mut conn = handover.connect(transport, received).await;
        conn.rejoin("7", "lobby:a").await;
        assert_eq!(conn.state().await, present([("u1", &meta), ("watcher", &watcher.meta)]));
        conn.acknowledge_all().await;
        received = conn.cut().await;
    }
    watcher.client.heartbeat().await;
}

async fn each_lobby_sends_its_state_at_its_own_rejoin(handover: Handover) {
    let (mut watcher, mut conn, meta) = watched(&handover).await;
    conn.join_other_lobby().await;
    conn.acknowledge_all().await;
    let mut conn = handover.reconnect(conn.cut().await).await;
    conn.begin_join("7", "lobby:b").await;
    conn.expect(&ok("7", "lobby:b")).await;
    let state = conn.recv().await;
    assert!(state.contains(r#""lobby:b","presence_state",{"u1":"#), "{state}");
    let diff = watcher.rename("unseen").await;
    watcher.meta = renamed(&diff, "watcher", &watcher.meta, "unseen");
    conn.heartbeat().await;
    conn.rejoin("8", "lobby:a").await;
    assert_eq!(conn.state().await, present([("u1", &meta), ("watcher", &watcher.meta)]));
    expect_nothing_else(&mut watcher, &mut conn).await;
}

impl Connection {
    async fn join_other_lobby(&mut self) {
        self.begin_join("2", "lobby:b").await;
        self.expect(&ok("2", "lobby:b")).await;
        for event in ["presence_state", "presence_diff"] {
            let got = self.recv().await;
            assert!(got.starts_with(&format!(r#"[null,null,"lobby:b","{event}","#)), "{got}");
        }
    }
}

async fn a_leave_after_the_return_ends_the_presence(handover: Handover) {
    let (mut watcher, conn, meta) = watched(&handover).await;
    let mut conn = handover.reconnect(conn.cut().await).await;
    conn.rejoin("7", "lobby:a").await;
    conn.state().await;
    conn.acknowledge_all().await;
    conn.send(r#"["7","8","lobby:a","phx_leave",{}]"#).await;
    conn.expect(&ok("8", "lobby:a")).await;
    conn.expect(&handover.closed("7", "lobby:a")).await;
    assert_eq!(watcher.diff().await, leaves("u1", &[&meta]));
    conn.heartbeat().await;
    let again = conn.join_lobby("u1").await;
    assert_ne!(phx_ref(&again), phx_ref(&meta));
    assert_eq!(watcher.diff().await, joins("u1", &[&again]));
}

async fn after_a_crash_the_next_join_starts_a_new_presence(handover: Handover) {
    let (mut watcher, mut conn, meta) = watched(&handover).await;
    conn.send(r#"["1","2","lobby:a","unknown",{}]"#).await;
    let received = conn.cut().await;
    assert_eq!(watcher.diff().await, leaves("u1", &[&meta]));
    let mut conn = handover.reconnect(received).await;
    let again = conn.join_lobby("u1").await;
    assert_eq!(watcher.diff().await, joins("u1", &[&again]));
    conn.heartbeat().await;
}

async fn a_disconnect_while_away_ends_the_presence(handover: Handover) {
    let (mut watcher, conn, meta) = watched(&handover).await;
    let received = conn.cut().await;
    handover.server.disconnect("user_socket:u1").await;
    assert_eq!(watcher.diff().await, leaves("u1", &[&meta]));
    let mut conn = handover.reconnect(received).await;
    let again = conn.join_lobby("u1").await;
    assert_eq!(watcher.diff().await, joins("u1", &[&again]));
}

/// Starts the reference application with a short session TTL and poll timeout.
async fn short_timeouts() -> Server {
    let (poll_timeout, session_ttl) = (Duration::from_millis(200), Duration::from_millis(200));
    Server::with(Config { poll_timeout, session_ttl, ..Config::default() }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_see_a_leave_when_a_detached_session_expires() {
    for transport in [WebSocket, Poll] {
        let server = short_timeouts().await;
        let mut watcher = watcher(&server).await;
        let mut conn = Connection::open(&server, transport, SESSION).await;
        let meta = conn.join_lobby("u1").await;
        assert_eq!(watcher.diff().await, joins("u1", &[&meta]));
        conn.cut().await;
        assert_eq!(watcher.diff().await, leaves("u1", &[&meta]));
        let mut conn = Connection::open(&server, transport, SESSION).await;
        let again = conn.join_lobby("u1").await;
        assert_eq!(watcher.diff().await, joins("u1", &[&again]));
    }
}

/// A channel that only tracks presence and announces it at once.
struct Lobby;

impl Channel for Lobby {
    type Assigns = ();
    type Info = ();

    async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        Ok(Self.into())
    }

    async fn after_join(&mut self, socket: &Socket<Self>) -> Result<()> {
        Presence::track(socket, "u1", json!({}))?;
        Presence::push_state(socket);
        Ok(())
    }
}

async fn serve(config: ResumeConfig) -> (Server, Endpoint<()>) {
    serve_with(config, PresenceConfig::default().interval(Duration::ZERO)).await
}

async fn serve_with(config: ResumeConfig, presence: PresenceConfig) -> (Server, Endpoint<()>) {
    let endpoint = Endpoint::builder(|_| async { Ok(()) })
        .id(|()| Some("the one".to_owned()))
        .channel::<Lobby>("lobby:*")
        .presence(presence)
        .resume(config)
        .build();
    let app = axum::Router::new().layer(endpoint.layer("/socket"));
    let server = Server::running(|listener, _| async { axum::serve(listener, app).await }).await;
    (server, endpoint)
}

/// Changes a meta the given number of times, each in a separate diff.
async fn change(endpoint: &Endpoint<()>, times: usize, pad: usize) {
    let bot = endpoint.presence().track_task("lobby:a", "bot", json!({})).expect("tracks");
    let mut changes = endpoint.presence().changes();
    let pad = "x".repeat(pad);
    for n in 0..times {
        let change = |meta: &mut Map<String, Value>| {
            *meta = Map::from_iter([("n".into(), n.into()), ("pad".into(), pad.clone().into())]);
        };
        bot.update(change).expect("tracks");
        loop {
            let diff = crate::support::soon(changes.next()).await.expect("the endpoint is alive");
            let diff = diff.expect("no lag");
            let metas = diff.joins.get("bot").map(|bot| bot.metas().len());
            if metas == Some(1) {
                break;
            }
        }
    }
}

async fn thousands_of_diffs_while_away(back: Transport) {
    let (server, endpoint) = serve(ResumeConfig::default()).await;
    let mut conn = Connection::open(&server, WebSocket, SESSION).await;
    let meta = conn.join_lobby("u1").await;
    conn.acknowledge_all().await;
    conn.cut().await;
    endpoint.broadcast("lobby:a", "new_msg", json!({ "n": 1 }));
    // Ten times the outbox limit.
    change(&endpoint, 5000, 1000).await;
    endpoint.broadcast("lobby:a", "new_msg", json!({ "n": 2 }));
    assert_eq!(endpoint.sessions().total(), 1);
    let mut conn = Connection::open(&server, back, SESSION).await;
    conn.rejoin("7", "lobby:a").await;
    for n in [1, 2] {
        conn.expect(&new_msg("lobby:a", n)).await;
    }
    // The bot has left, and the client's own presence is the same as before.
    assert_eq!(conn.state().await, json!({ "u1": { "metas": [meta] } }));
    conn.heartbeat().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_diffs_do_not_fill_the_outbox_of_a_detached_session() {
    thousands_of_diffs_while_away(WebSocket).await;
    thousands_of_diffs_while_away(Poll).await;
}

/// The client has reconnected but delays its rejoin.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_diffs_do_not_fill_the_outbox_before_a_rejoin() {
    for back in [WebSocket, Poll] {
        let (server, endpoint) = serve(ResumeConfig::default()).await;
        let mut conn = Connection::open(&server, WebSocket, SESSION).await;
        let meta = conn.join_lobby("u1").await;
        conn.acknowledge_all().await;
        conn.cut().await;
        let mut conn = Connection::open(&server, back, SESSION).await;
        conn.heartbeat().await;
        change(&endpoint, 3000, 1000).await;
        conn.heartbeat().await;
        conn.rejoin("7", "lobby:a").await;
        assert_eq!(conn.state().await, json!({ "u1": { "metas": [meta] } }));
        conn.heartbeat().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_see_a_leave_of_a_lobby_that_is_not_rejoined_in_time() {
    for transport in [WebSocket, Poll] {
        let (server, endpoint) = serve(short_grace()).await;
        let mut conn = Connection::open(&server, transport, SESSION).await;
        let meta = conn.join_lobby("u1").await;
        conn.acknowledge_all().await;
        conn.cut().await;
        let mut changes = endpoint.presence().changes();
        let mut conn = Connection::open(&server, transport, SESSION).await;
        conn.heartbeat().await;
        let diff = crate::support::soon(changes.next())
            .await
            .expect("the endpoint is alive")
            .expect("no lag");
        assert_eq!(diff.leaves.keys().collect::<Vec<_>>(), ["u1"]);
        assert_eq!(endpoint.presence().count("lobby:a"), 0);
        let again = conn.join_lobby("u1").await;
        assert_ne!(phx_ref(&again), phx_ref(&meta));
        conn.heartbeat().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_closes_its_websocket_leaves_and_comes_back_with_the_same_meta() {
    for (code, back) in [(None, WebSocket), (Some(1000), Poll), (Some(1001), WebSocket)] {
        let (server, endpoint) = serve_without_grace().await;
        let mut conn = Connection::open(&server, WebSocket, SESSION).await;
        conn.join_lobby("u1").await;
        conn.acknowledge_all().await;
        let mut changes = endpoint.presence().changes();
        conn.close_with(code).await;
        let diff = next_change(&mut changes).await;
        assert_eq!(diff.leaves.keys().collect::<Vec<_>>(), ["u1"]);
        let mut conn = Connection::open(&server, back, SESSION).await;
        conn.heartbeat().await;
        assert_eq!(endpoint.presence().count("lobby:a"), 0, "it has not rejoined");
        conn.rejoin("7", "lobby:a").await;
        let diff = next_change(&mut changes).await;
        assert_eq!(diff.joins.keys().collect::<Vec<_>>(), ["u1"]);
        let own = json!({ "u1": { "metas": [diff.joins.get("u1").expect("it is").metas()[0]] } });
        assert_eq!(conn.state().await, own);
        conn.diff(&json!({ "joins": own, "leaves": {} })).await;
        conn.heartbeat().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_closes_its_websocket_for_an_error_stays() {
    let (server, endpoint) = serve_without_grace().await;
    let mut conn = Connection::open(&server, WebSocket, SESSION).await;
    let meta = conn.join_lobby("u1").await;
    conn.acknowledge_all().await;
    conn.close_with(Some(1011)).await;
    let mut changes = endpoint.presence().changes();
    let _bot = endpoint.presence().track_task("lobby:a", "bot", json!({})).expect("tracks");
    let diff = next_change(&mut changes).await;
    assert_eq!((diff.joins.len(), diff.leaves.len()), (1, 0));
    let mut conn = Connection::open(&server, WebSocket, SESSION).await;
    conn.rejoin("7", "lobby:a").await;
    assert_eq!(conn.state().await["u1"]["metas"], json!([meta]));
}

async fn serve_without_grace() -> (Server, Endpoint<()>) {
    let config = PresenceConfig::default().interval(Duration::ZERO).leave_grace(Duration::ZERO);
    serve_with(ResumeConfig::default(), config).await
}

async fn next_change(changes: &mut PresenceChanges) -> Arc<PresenceDiff> {
    let diff = crate::support::soon(changes.next()).await;
    diff.expect("the endpoint is alive").expect("no lag")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_expires_leaves_no_presence_behind() {
    let (server, endpoint) = serve(short_ttl()).await;
    let mut changes = endpoint.presence().changes();
    for _ in 0..5 {
        let mut conn = Connection::open(&server, WebSocket, SESSION).await;
        conn.join_lobby("u1").await;
        conn.cut().await;
        for keys in [vec!["u1"], vec![]] {
            let diff = crate::support::soon(changes.next())
                .await
                .expect("the endpoint is alive")
                .expect("no lag");
            assert_eq!(diff.joins.keys().collect::<Vec<_>>(), keys);
        }
        assert_eq!(endpoint.presence().count("lobby:a"), 0);
    }
}
