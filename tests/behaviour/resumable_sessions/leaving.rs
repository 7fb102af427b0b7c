//! Leaving topics and joining them again in a resumable session, and the ends of channels.

use std::time::Duration;

use super::{Handover, new_msg};
use crate::support::Connection;
use crate::support::connection::ok;

handovers![
    a_join_behind_a_leave_starts_a_new_channel,
    a_join_behind_a_stop_starts_a_new_channel,
    a_join_behind_a_stop_and_a_leave_starts_a_new_channel,
    every_join_behind_an_end_is_answered,
    the_end_of_a_channel_carries_the_join_ref_of_the_last_join,
    a_leave_after_an_acknowledged_join_ends_the_channel,
    a_leave_right_after_its_join_ends_the_channel,
    a_leave_after_a_reconnect_ends_a_channel_whose_join_was_answered_before,
    a_leave_sent_by_a_join_that_timed_out_only_detaches,
];

async fn a_join_behind_a_leave_starts_a_new_channel(handover: Handover) {
    let mut conn = with_state(&handover).await;
    conn.send_all(&[r#"["1","3","room:a","phx_leave",{}]"#, r#"["4","4","room:a","phx_join",{}]"#])
        .await;
    conn.expect(&ok("3", "room:a")).await;
    expect_a_new_channel(&handover, conn).await;
}

async fn a_join_behind_a_stop_starts_a_new_channel(handover: Handover) {
    let mut conn = with_state(&handover).await;
    conn.send_all(&[
        r#"["1","3","room:a","stop_reply",{}]"#,
        r#"["4","4","room:a","phx_join",{}]"#,
    ])
    .await;
    conn.expect(&ok("3", "room:a")).await;
    expect_a_new_channel(&handover, conn).await;
}

/// phoenix.js leaves an open topic before it joins it through another channel.
async fn a_join_behind_a_stop_and_a_leave_starts_a_new_channel(handover: Handover) {
    let mut conn = with_state(&handover).await;
    conn.send_all(&[
        r#"["1",null,"room:a","stop",{}]"#,
        r#"["1","3","room:a","phx_leave",{}]"#,
        r#"["4","4","room:a","phx_join",{}]"#,
    ])
    .await;
    let closed = handover.closed("1", "room:a");
    let mut got = [conn.recv().await, conn.recv().await];
    got.sort_unstable();
    let mut expected = [ok("3", "room:a"), closed];
    expected.sort_unstable();
    assert_eq!(got, expected);
    conn.expect(&ok("4", "room:a")).await;
    conn.expect(JOINED).await;
    conn.ping("4", "room:a").await;
}

async fn every_join_behind_an_end_is_answered(handover: Handover) {
    let mut conn = with_state(&handover).await;
    conn.send_all(&[
        r#"["1","3","room:a","phx_leave",{}]"#,
        r#"["4","4","room:a","phx_join",{}]"#,
        r#"["4","5","room:a","phx_leave",{}]"#,
        r#"["6","6","room:a","phx_join",{}]"#,
        r#"["7","7","room:a","phx_join",{}]"#,
        r#"["7","8","room:a","ping",{}]"#,
    ])
    .await;
    let mut got = Vec::new();
    while got.last() != Some(&ok("8", "room:a")) {
        got.push(conn.recv().await);
    }
    got.retain(|message| message != JOINED);
    let expected = [
        ok("3", "room:a"),
        handover.closed("1", "room:a"),
        ok("4", "room:a"),
        ok("5", "room:a"),
        handover.closed("4", "room:a"),
        ok("6", "room:a"),
        ok("7", "room:a"),
        ok("8", "room:a"),
    ];
    assert_eq!(got, expected);
}

async fn the_end_of_a_channel_carries_the_join_ref_of_the_last_join(handover: Handover) {
    let ends =
        [("boom", r#""phx_error",{"reason":"channel_crash"}"#), ("stop", r#""phx_close",{}"#)];
    for (event, end) in ends {
        let conn = handover.member().await;
        let mut conn = handover.reconnect(conn.cut().await).await;
        conn.rejoin("7", "room:a").await;
        conn.rejoin("8", "room:a").await;
        conn.send(&format!(r#"["8",null,"room:a","{event}",{{}}]"#)).await;
        conn.expect(&handover.end("8", "room:a", end)).await;
        handover.server.disconnect("user_socket:u1").await;
    }
}

async fn a_leave_after_an_acknowledged_join_ends_the_channel(handover: Handover) {
    let conn = handover.member().await;
    let mut conn = handover.reconnect(conn.cut().await).await;
    conn.rejoin("7", "room:a").await;
    conn.ping("7", "room:a").await;
    conn.send(r#"["7","8","room:a","phx_leave",{}]"#).await;
    conn.expect(&ok("8", "room:a")).await;
    conn.expect(&handover.closed("7", "room:a")).await;
    handover.broadcast("room:a", 1).await;
    conn.heartbeat().await;
    conn.join("9", "room:a").await;
}

async fn a_leave_right_after_its_join_ends_the_channel(handover: Handover) {
    let mut conn = handover.first().await;
    for (join_ref, leave_ref) in [("1", "2"), ("3", "4")] {
        let join = format!(r#"["{join_ref}","{join_ref}","room:a","phx_join",{{}}]"#);
        let leave = format!(r#"["{join_ref}","{leave_ref}","room:a","phx_leave",{{}}]"#);
        conn.send_all(&[&join, &leave]).await;
        let mut got = Vec::new();
        while got.last() != Some(&handover.closed(join_ref, "room:a")) {
            got.push(conn.recv().await);
        }
        let (join, leave) = (ok(join_ref, "room:a"), ok(leave_ref, "room:a"));
        assert!(got.contains(&join) && got.contains(&leave), "{got:?}");
    }
    conn.join("5", "room:a").await;
}

async fn a_leave_after_a_reconnect_ends_a_channel_whose_join_was_answered_before(
    handover: Handover,
) {
    let conn = handover.member().await;
    let mut conn = handover.reconnect(conn.cut().await).await;
    conn.send(r#"["1","2","room:a","phx_leave",{}]"#).await;
    conn.expect(&ok("2", "room:a")).await;
    conn.expect(&handover.closed("1", "room:a")).await;
    conn.join("7", "room:a").await;
}

async fn a_leave_sent_by_a_join_that_timed_out_only_detaches(handover: Handover) {
    let received = handover.member().await.cut().await;
    handover.broadcast("room:a", 1).await;
    let mut conn = handover.reconnect(received).await;
    conn.begin_join("7", "room:a").await;
    // Longer than a page may take to leave what it has just joined, on a line that acknowledges nothing.
    tokio::time::sleep(Duration::from_millis(5200)).await;
    conn.send_all(&[r#"["7","8","room:a","phx_leave",{}]"#, r#"["9","9","room:a","phx_join",{}]"#])
        .await;
    let mut got = Vec::new();
    while !got.contains(&new_msg("room:a", 1)) || !got.contains(&ok("9", "room:a")) {
        got.push(conn.recv().await);
    }
    assert!(got.contains(&ok("8", "room:a")), "{got:?}");
    conn.ping("9", "room:a").await;
}

const JOINED: &str = r#"[null,null,"room:a","joined",{"user_id":"u1"}]"#;

/// Opens the first connection, joins `room:a` as `"1"`, and sets a value in the channel.
async fn with_state(handover: &Handover) -> Connection {
    let mut conn = handover.member().await;
    conn.send(r#"["1","2","room:a","assign",{"k":"k","v":1}]"#).await;
    conn.expect(&ok("2", "room:a")).await;
    conn
}

/// Expects the end of the channel `"1"`, and then a channel `"4"` that stays joined.
async fn expect_a_new_channel(handover: &Handover, mut conn: Connection) {
    conn.expect(&handover.closed("1", "room:a")).await;
    conn.expect(&ok("4", "room:a")).await;
    conn.expect(JOINED).await;
    conn.send(r#"["4","5","room:a","fetch",{"k":"k"}]"#).await;
    conn.expect(r#"[null,"5","room:a","phx_reply",{"status":"ok","response":{"v":null}}]"#).await;
    handover.acknowledge_all(&mut conn).await;
    let received = conn.cut().await;
    handover.broadcast("room:a", 1).await;
    let mut conn = handover.reconnect(received).await;
    conn.rejoin("7", "room:a").await;
    conn.expect(&new_msg("room:a", 1)).await;
    conn.ping("7", "room:a").await;
}
