//! Decoding and encoding messages of the sizes found in a chat.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::json;
use tower_channels::Payload;
use tower_channels::internals::{Ref, ServerMessage, Topic, Version};
use tower_channels_transports::Inbound;

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    for size in [16, 1024, 16 * 1024] {
        let body = "x".repeat(size);
        let v1 = json!({ "topic": "room:lobby", "event": "new_msg", "payload": { "body": body }, "ref": "12" });
        let v2 = json!(["1", "12", "room:lobby", "new_msg", { "body": body }]);
        let binary = [b"\x00\x01\x02\x0a\x07112room:lobbynew_msg", body.as_bytes()].concat();
        group.throughput(Throughput::Bytes(size as u64));
        for (name, version, text) in [("v1 text", Version::V1, v1), ("v2 text", Version::V2, v2)] {
            let text = text.to_string();
            group.bench_function(BenchmarkId::new(name, size), |b| {
                b.iter(|| version.decode(black_box(Inbound::Text(&text))).expect("valid"))
            });
        }
        group.bench_function(BenchmarkId::new("v2 binary", size), |b| {
            b.iter(|| Version::V2.decode(black_box(Inbound::Binary(&binary))).expect("valid"))
        });
    }
    group.finish();
}

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    let (join_ref, reference) = (Ref::from_bytes(b"1"), Ref::from_bytes(b"12"));
    let (join_ref, reference) = (&join_ref.expect("short"), &reference.expect("short"));
    let topic = &Topic::from("room:lobby");
    for size in [16, 1024, 16 * 1024] {
        let payload = &Payload::from(json!({ "body": "x".repeat(size) }));
        let reply =
            ServerMessage::Reply { join_ref, reference, topic, status: "ok", response: payload };
        let broadcast = ServerMessage::Broadcast {
            topic: "room:lobby",
            event: "new_msg",
            payload,
            position: None,
        };
        group.throughput(Throughput::Bytes(size as u64));
        for (name, message) in [("reply", reply), ("broadcast", broadcast)] {
            for (version, vsn) in [(Version::V1, "v1"), (Version::V2, "v2")] {
                group.bench_function(BenchmarkId::new(format!("{vsn} {name}"), size), |b| {
                    b.iter(|| version.encode(black_box(&message)).expect("can be encoded"))
                });
            }
        }
    }
    group.finish();
}

criterion_group!(benches, decode, encode);
criterion_main!(benches);
