//! A session that outlives its connections, in a lobby: it stays present, and its client is told anew
//! who else is.

use std::time::Duration;

use serde_json::{Map, Value, json};
use tower_channels::channel::Result;
use tower_channels::{
    Channel, Endpoint, JoinError, Joined, Payload, Presence, PresenceConfig, ResumeConfig, Socket,
};

use super::Transport::{LongPoll as Poll, WebSocket};
use super::{SESSION, Way, brief_grace, brief_ttl, new_msg};
use crate::reference::Config;
use crate::support::line::ok;
use crate::support::lobby::{Present, joins, leaves, phx_ref, renamed};
use crate::support::{Client, Line, Server, Transport, Version};

ways![
    others_see_neither_leave_nor_join_of_who_was_away,
    others_see_nothing_of_a_connection_that_takes_over_from_a_living_one,
    who_returns_is_sent_the_state_once_and_no_diff_of_what_it_missed,
    other_messages_of_the_lobby_are_said_again_as_ever,
    a_diff_that_was_written_and_never_read_is_not_said_again,
    what_one_changed_oneself_before_the_cut_is_in_the_state,
    diffs_go_on_after_the_state,
    two_rejoins_in_a_row_bring_the_state_and_keep_the_presence,
    a_leave_that_only_detaches_keeps_the_presence,
    each_return_brings_the_state_again,
    each_lobby_gets_its_state_when_it_is_joined_again,
    a_leave_after_the_return_ends_the_presence,
    a_crash_while_away_ends_the_presence_and_the_next_join_begins_another,
    a_disconnect_while_away_ends_the_presence,
];

/// Somebody without a session, who sees the lobby.
async fn watcher(server: &Server) -> Present {
    let client = Client::connect(server, WebSocket, Version::V2, "user_id=watcher").await;
    Present::enter(client, "watcher", r#"{"name":"first"}"#).await
}

/// A watcher, and the session's first connection in the lobby with its meta: both know of each other.
async fn both(way: &Way) -> (Present, Line, Value) {
    let mut watcher = watcher(&way.server).await;
    let mut line = way.begin().await;
    let meta = line.enter("u1").await;
    assert_eq!(watcher.diff().await, joins("u1", &[&meta]));
    line.rejoin_deadline().await;
    (watcher, line, meta)
}

/// Nothing but what a name of the watcher's own changes is announced to anybody.
async fn nothing_else_happened(watcher: &mut Present, line: &mut Line) {
    let old = watcher.meta.clone();
    let diff = watcher.rename("calm").await;
    watcher.meta = renamed(&diff, "watcher", &old, "calm");
    line.diff(&diff).await;
    line.heartbeat().await;
    watcher.client.heartbeat().await;
}

impl Line {
    /// The next message is this diff.
    async fn diff(&mut self, diff: &Value) {
        assert_eq!(crate::support::lobby::diff(&self.recv().await), *diff);
    }
}

fn present(metas: [(&str, &Value); 2]) -> Value {
    let all = metas.map(|(key, meta)| (key.to_owned(), json!({ "metas": [meta] })));
    Value::Object(all.into_iter().collect())
}

async fn others_see_neither_leave_nor_join_of_who_was_away(way: Way) {
    let (mut watcher, line, meta) = both(&way).await;
    let mut line = way.back(line.cut().await).await;
    line.heartbeat().await;
    line.rejoin("7", "lobby:a").await;
    assert_eq!(line.state().await, present([("u1", &meta), ("watcher", &watcher.meta)]));
    nothing_else_happened(&mut watcher, &mut line).await;
    line.send(r#"["7","8","lobby:a","rename",{"name":"Ann"}]"#).await;
    line.expect(&ok("8", "lobby:a")).await;
    let diff = watcher.diff().await;
    renamed(&diff, "u1", &meta, "Ann");
    line.diff(&diff).await;
}

async fn others_see_nothing_of_a_connection_that_takes_over_from_a_living_one(way: Way) {
    let (mut watcher, older, meta) = both(&way).await;
    let mut line = way.back(older.received()).await;
    line.rejoin("7", "lobby:a").await;
    assert_eq!(line.state().await, present([("u1", &meta), ("watcher", &watcher.meta)]));
    nothing_else_happened(&mut watcher, &mut line).await;
}

async fn who_returns_is_sent_the_state_once_and_no_diff_of_what_it_missed(way: Way) {
    let (mut watcher, line, meta) = both(&way).await;
    let received = line.cut().await;
    let guest = Client::connect(&way.server, WebSocket, Version::V2, "user_id=guest").await;
    let guest = Present::enter(guest, "guest", "{}").await;
    watcher.diff().await;
    for name in ["second", "third"] {
        let diff = watcher.rename(name).await;
        watcher.meta = renamed(&diff, "watcher", &watcher.meta, name);
    }
    drop(guest.client);
    assert_eq!(watcher.diff().await, leaves("guest", &[&guest.meta]));
    let mut line = way.back(received).await;
    line.heartbeat().await;
    line.rejoin("7", "lobby:a").await;
    assert_eq!(line.state().await, present([("u1", &meta), ("watcher", &watcher.meta)]));
    nothing_else_happened(&mut watcher, &mut line).await;
}

async fn other_messages_of_the_lobby_are_said_again_as_ever(way: Way) {
    let (mut watcher, mut line, meta) = both(&way).await;
    way.broadcast("lobby:a", 1).await;
    watcher.client.expect(&new_msg("lobby:a", 1)).await;
    line.expect(&new_msg("lobby:a", 1)).await;
    line.rejoin_deadline().await;
    let received = line.cut().await;
    for number in 2..=4 {
        way.broadcast("lobby:a", number).await;
        watcher.client.expect(&new_msg("lobby:a", number)).await;
        let diff = watcher.rename("new").await;
        watcher.meta = renamed(&diff, "watcher", &watcher.meta, "new");
    }
    let mut line = way.back(received).await;
    line.rejoin("7", "lobby:a").await;
    for number in 2..=4 {
        line.expect(&new_msg("lobby:a", number)).await;
    }
    assert_eq!(line.state().await, present([("u1", &meta), ("watcher", &watcher.meta)]));
    nothing_else_happened(&mut watcher, &mut line).await;
}

async fn a_diff_that_was_written_and_never_read_is_not_said_again(way: Way) {
    let (mut watcher, line, meta) = both(&way).await;
    way.broadcast("lobby:a", 1).await;
    watcher.client.expect(&new_msg("lobby:a", 1)).await;
    let diff = watcher.rename("unread").await;
    watcher.meta = renamed(&diff, "watcher", &watcher.meta, "unread");
    let mut line = way.back(line.cut().await).await;
    line.rejoin("7", "lobby:a").await;
    line.expect(&new_msg("lobby:a", 1)).await;
    assert_eq!(line.state().await, present([("u1", &meta), ("watcher", &watcher.meta)]));
    nothing_else_happened(&mut watcher, &mut line).await;
}

async fn what_one_changed_oneself_before_the_cut_is_in_the_state(way: Way) {
    let (mut watcher, mut line, meta) = both(&way).await;
    line.send(r#"["1","2","lobby:a","rename",{"name":"Ann"}]"#).await;
    let meta = renamed(&watcher.diff().await, "u1", &meta, "Ann");
    let mut line = way.back(line.cut().await).await;
    line.rejoin("7", "lobby:a").await;
    line.expect(&ok("2", "lobby:a")).await;
    assert_eq!(line.state().await, present([("u1", &meta), ("watcher", &watcher.meta)]));
    nothing_else_happened(&mut watcher, &mut line).await;
}

async fn diffs_go_on_after_the_state(way: Way) {
    let (mut watcher, line, _) = both(&way).await;
    let mut line = way.back(line.cut().await).await;
    line.rejoin("7", "lobby:a").await;
    line.state().await;
    for name in ["a", "b", "c"] {
        let diff = watcher.rename(name).await;
        line.diff(&diff).await;
    }
    line.heartbeat().await;
}

async fn two_rejoins_in_a_row_bring_the_state_and_keep_the_presence(way: Way) {
    let (mut watcher, line, meta) = both(&way).await;
    let received = line.cut().await;
    way.broadcast("lobby:a", 1).await;
    watcher.client.expect(&new_msg("lobby:a", 1)).await;
    let mut line = way.back(received).await;
    line.send_all(&[
        r#"["7","7","lobby:a","phx_join",{}]"#,
        r#"["8","8","lobby:a","phx_join",{}]"#,
    ])
    .await;
    let diff = watcher.rename("calm").await;
    renamed(&diff, "watcher", &watcher.meta, "calm");
    // The second state, if there are two, comes before or after the diff, which the first may hold.
    let (mut replies, mut others) = (Vec::new(), Vec::new());
    while replies.len() < 2 || !others.iter().any(|got: &String| got.contains("presence_state")) {
        let got = line.recv().await;
        if got.contains("phx_reply") { replies.push(got) } else { others.push(got) }
    }
    assert_eq!(replies, [ok("7", "lobby:a"), ok("8", "lobby:a")]);
    assert_eq!(others.iter().filter(|got| **got == new_msg("lobby:a", 1)).count(), 1, "{others:?}");
    line.send(r#"["8","9","lobby:a","rename",{"name":"Ann"}]"#).await;
    renamed(&watcher.diff().await, "u1", &meta, "Ann");
    line.skip_to(&ok("9", "lobby:a")).await;
}

async fn a_leave_that_only_detaches_keeps_the_presence(way: Way) {
    let (mut watcher, line, meta) = both(&way).await;
    let mut line = way.back(line.cut().await).await;
    line.send_all(&[
        r#"["7","7","lobby:a","phx_join",{}]"#,
        r#"["7","8","lobby:a","phx_leave",{}]"#,
        r#"["9","9","lobby:a","phx_join",{}]"#,
    ])
    .await;
    line.skip_to(&ok("9", "lobby:a")).await;
    assert_eq!(line.state().await, present([("u1", &meta), ("watcher", &watcher.meta)]));
    let old = watcher.meta.clone();
    renamed(&watcher.rename("calm").await, "watcher", &old, "calm");
}

async fn each_return_brings_the_state_again(way: Way) {
    let (mut watcher, line, meta) = both(&way).await;
    let mut received = line.cut().await;
    for round in 0..3 {
        let diff = watcher.rename("new").await;
        watcher.meta = renamed(&diff, "watcher", &watcher.meta, "new");
        let transport = if round % 2 == 0 { way.to } else { way.from };
        let mut line = way.line(transport, received).await;
        line.rejoin("7", "lobby:a").await;
        assert_eq!(line.state().await, present([("u1", &meta), ("watcher", &watcher.meta)]));
        line.rejoin_deadline().await;
        received = line.cut().await;
    }
    watcher.client.heartbeat().await;
}

async fn each_lobby_gets_its_state_when_it_is_joined_again(way: Way) {
    let (mut watcher, mut line, meta) = both(&way).await;
    line.join_other_lobby().await;
    line.rejoin_deadline().await;
    let mut line = way.back(line.cut().await).await;
    line.begin_join("7", "lobby:b").await;
    line.expect(&ok("7", "lobby:b")).await;
    let state = line.recv().await;
    assert!(state.contains(r#""lobby:b","presence_state",{"u1":"#), "{state}");
    let diff = watcher.rename("unheard").await;
    watcher.meta = renamed(&diff, "watcher", &watcher.meta, "unheard");
    line.heartbeat().await;
    line.rejoin("8", "lobby:a").await;
    assert_eq!(line.state().await, present([("u1", &meta), ("watcher", &watcher.meta)]));
    nothing_else_happened(&mut watcher, &mut line).await;
}

impl Line {
    async fn join_other_lobby(&mut self) {
        self.begin_join("2", "lobby:b").await;
        self.expect(&ok("2", "lobby:b")).await;
        for event in ["presence_state", "presence_diff"] {
            let got = self.recv().await;
            assert!(got.starts_with(&format!(r#"[null,null,"lobby:b","{event}","#)), "{got}");
        }
    }
}

async fn a_leave_after_the_return_ends_the_presence(way: Way) {
    let (mut watcher, line, meta) = both(&way).await;
    let mut line = way.back(line.cut().await).await;
    line.rejoin("7", "lobby:a").await;
    line.state().await;
    line.rejoin_deadline().await;
    line.send(r#"["7","8","lobby:a","phx_leave",{}]"#).await;
    line.expect(&ok("8", "lobby:a")).await;
    line.expect(r#"[null,null,"lobby:a","phx_close",{}]"#).await;
    assert_eq!(watcher.diff().await, leaves("u1", &[&meta]));
    line.heartbeat().await;
    let again = line.enter("u1").await;
    assert_ne!(phx_ref(&again), phx_ref(&meta));
    assert_eq!(watcher.diff().await, joins("u1", &[&again]));
}

async fn a_crash_while_away_ends_the_presence_and_the_next_join_begins_another(way: Way) {
    let (mut watcher, mut line, meta) = both(&way).await;
    line.send(r#"["1","2","lobby:a","nonsense",{}]"#).await;
    let received = line.cut().await;
    assert_eq!(watcher.diff().await, leaves("u1", &[&meta]));
    let mut line = way.back(received).await;
    let again = line.enter("u1").await;
    assert_eq!(watcher.diff().await, joins("u1", &[&again]));
    line.heartbeat().await;
}

async fn a_disconnect_while_away_ends_the_presence(way: Way) {
    let (mut watcher, line, meta) = both(&way).await;
    let received = line.cut().await;
    way.server.disconnect("user_socket:u1").await;
    assert_eq!(watcher.diff().await, leaves("u1", &[&meta]));
    let mut line = way.back(received).await;
    let again = line.enter("u1").await;
    assert_eq!(watcher.diff().await, joins("u1", &[&again]));
}

/// The reference application, with parked sessions and polls that end soon.
async fn brief() -> Server {
    let (window, session_ttl) = (Duration::from_millis(200), Duration::from_millis(200));
    Server::with(Config { window, session_ttl, ..Config::default() }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_see_a_leave_when_the_time_of_a_parked_session_is_over() {
    for transport in [WebSocket, Poll] {
        let server = brief().await;
        let mut watcher = watcher(&server).await;
        let mut line = Line::open(&server, transport, SESSION).await;
        let meta = line.enter("u1").await;
        assert_eq!(watcher.diff().await, joins("u1", &[&meta]));
        line.cut().await;
        assert_eq!(watcher.diff().await, leaves("u1", &[&meta]));
        let mut line = Line::open(&server, transport, SESSION).await;
        let again = line.enter("u1").await;
        assert_eq!(watcher.diff().await, joins("u1", &[&again]));
    }
}

/// Says nothing but who is there, at once.
struct Lobby;

impl Channel for Lobby {
    type Assigns = ();
    type Info = ();

    async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>, JoinError> {
        Ok(Self.into())
    }

    async fn after_join(&mut self, socket: &Socket<Self>) -> Result<()> {
        Presence::track(socket, "u1", json!({}))?;
        Presence::push_state(socket);
        Ok(())
    }
}

async fn serve(continuity: ResumeConfig) -> (Server, Endpoint<()>) {
    let endpoint = Endpoint::builder(|_| async { Ok(()) })
        .id(|()| Some("the one".to_owned()))
        .channel::<Lobby>("lobby:*")
        .presence(PresenceConfig::default().interval(Duration::ZERO))
        .resume(continuity)
        .build();
    let app = axum::Router::new().layer(endpoint.layer("/socket"));
    let server = Server::running(|listener, _| async { axum::serve(listener, app).await }).await;
    (server, endpoint)
}

/// Changes a meta so many times, each in a diff of its own.
async fn change(endpoint: &Endpoint<()>, times: usize, pad: usize) {
    let bot = endpoint.presence().track_task("lobby:a", "bot", json!({})).expect("it may");
    let mut changes = endpoint.presence().changes();
    let pad = "x".repeat(pad);
    for n in 0..times {
        let change = |meta: &mut Map<String, Value>| {
            *meta = Map::from_iter([("n".into(), n.into()), ("pad".into(), pad.clone().into())]);
        };
        bot.update(change).expect("it may");
        loop {
            let diff = crate::support::soon(changes.next()).await.expect("it lives");
            let diff = diff.expect("none is missed");
            let metas = diff.joins.get("bot").map(|bot| bot.metas().len());
            if metas == Some(1) {
                break;
            }
        }
    }
}

async fn thousands_of_diffs_while_away(back: Transport) {
    let (server, endpoint) = serve(ResumeConfig::default()).await;
    let mut line = Line::open(&server, WebSocket, SESSION).await;
    let meta = line.enter("u1").await;
    line.rejoin_deadline().await;
    line.cut().await;
    endpoint.broadcast("lobby:a", "new_msg", json!({ "n": 1 }));
    // Ten times what an outbox may hold.
    change(&endpoint, 5000, 1000).await;
    endpoint.broadcast("lobby:a", "new_msg", json!({ "n": 2 }));
    assert_eq!(endpoint.sessions().total(), 1);
    let mut line = Line::open(&server, back, SESSION).await;
    line.rejoin("7", "lobby:a").await;
    for n in [1, 2] {
        line.expect(&new_msg("lobby:a", n)).await;
    }
    // The bot has gone, and it is the same presence as before.
    assert_eq!(line.state().await, json!({ "u1": { "metas": [meta] } }));
    line.heartbeat().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_diffs_fill_no_outbox_of_a_websocket_that_is_gone() {
    thousands_of_diffs_while_away(WebSocket).await;
    thousands_of_diffs_while_away(Poll).await;
}

/// Connected again, but not joined: a client that takes its time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_diffs_fill_no_outbox_of_a_lobby_that_waits_for_its_rejoin() {
    for back in [WebSocket, Poll] {
        let (server, endpoint) = serve(ResumeConfig::default()).await;
        let mut line = Line::open(&server, WebSocket, SESSION).await;
        let meta = line.enter("u1").await;
        line.rejoin_deadline().await;
        line.cut().await;
        let mut line = Line::open(&server, back, SESSION).await;
        line.heartbeat().await;
        change(&endpoint, 3000, 1000).await;
        line.heartbeat().await;
        line.rejoin("7", "lobby:a").await;
        assert_eq!(line.state().await, json!({ "u1": { "metas": [meta] } }));
        line.heartbeat().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_see_a_leave_of_a_lobby_that_is_not_joined_again_in_time() {
    for transport in [WebSocket, Poll] {
        let (server, endpoint) = serve(brief_grace()).await;
        let mut line = Line::open(&server, transport, SESSION).await;
        let meta = line.enter("u1").await;
        line.rejoin_deadline().await;
        line.cut().await;
        let mut changes = endpoint.presence().changes();
        let mut line = Line::open(&server, transport, SESSION).await;
        line.heartbeat().await;
        let diff = crate::support::soon(changes.next()).await.expect("it lives").expect("all");
        assert_eq!(diff.leaves.keys().collect::<Vec<_>>(), ["u1"]);
        assert_eq!(endpoint.presence().count("lobby:a"), 0);
        let again = line.enter("u1").await;
        assert_ne!(phx_ref(&again), phx_ref(&meta));
        line.heartbeat().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_ends_while_parked_leaves_nobody_behind() {
    let (server, endpoint) = serve(brief_ttl()).await;
    let mut changes = endpoint.presence().changes();
    for _ in 0..5 {
        let mut line = Line::open(&server, WebSocket, SESSION).await;
        line.enter("u1").await;
        line.cut().await;
        for keys in [vec!["u1"], vec![]] {
            let diff = crate::support::soon(changes.next()).await.expect("it lives").expect("all");
            assert_eq!(diff.joins.keys().collect::<Vec<_>>(), keys);
        }
        assert_eq!(endpoint.presence().count("lobby:a"), 0);
    }
}
