//! Broadcasts to in-memory clients: the cost per delivery of the library itself.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::json;
use tower_channels::channel::Result;
use tower_channels::test::{Client, connect};
use tower_channels::{Channel, Endpoint, Joined, Payload, Socket};

struct Room;

impl Channel for Room {
    type Assigns = ();
    type Info = ();

    const INTERCEPT: &'static [&'static str] = &["intercepted"];

    async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        Ok(Self.into())
    }
}

fn broadcast(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let mut group = c.benchmark_group("broadcast");
    for subscribers in [10, 1000, 10_000] {
        let endpoint = Endpoint::builder(|_| async { Ok(()) }).channel::<Room>("room:*").build();
        let mut clients = runtime.block_on(crowd(&endpoint, subscribers));
        let payload = Payload::from(json!({ "body": "x".repeat(64) }));
        group.throughput(Throughput::Elements(subscribers as u64));
        for event in ["new_msg", "intercepted"] {
            group.bench_function(BenchmarkId::new(event, subscribers), |b| {
                b.iter(|| {
                    runtime.block_on(async {
                        endpoint.broadcast("room:1", event, black_box(payload.clone()));
                        let mut received = 0;
                        while received < subscribers {
                            received += clients.iter_mut().map(Client::discard).sum::<usize>();
                            if received < subscribers {
                                tokio::task::yield_now().await;
                            }
                        }
                    });
                })
            });
        }
    }
    group.finish();
}

async fn crowd(endpoint: &Endpoint<()>, size: usize) -> Vec<Client<()>> {
    let mut clients = Vec::with_capacity(size);
    for _ in 0..size {
        let mut client = connect(endpoint, &[]).await.expect("connects");
        client.join("room:1", json!({})).await;
        clients.push(client);
    }
    clients
}

criterion_group!(benches, broadcast);
criterion_main!(benches);
