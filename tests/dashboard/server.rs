//! The server of the dashboard's test: a channel of each kind that the dashboard shows, and `/metrics` as
//! docs/metrics.md has it. Prints its address.

use axum::Router;
use axum::routing::get;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use serde_json::json;
use tower_channels::channel::{Error, Result};
use tower_channels::{Channel, ConnectInfo, Endpoint, Joined, Payload, Rejected, Reply, Socket};

struct Room;

impl Channel for Room {
    type Assigns = ();
    type Info = ();

    async fn join(topic: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        if topic == "room:closed" { Err(Error::reason("closed")) } else { Ok(Self.into()) }
    }

    async fn handle_in(
        &mut self,
        event: &str,
        payload: Payload,
        it: &Socket<Self>,
    ) -> Result<Reply> {
        match event {
            "new_msg" => {
                it.broadcast("new_msg", payload);
                Ok(Reply::ok(json!({})))
            }
            _ => Err(Error::unmatched(event)),
        }
    }
}

async fn connect(info: ConnectInfo) -> Result<(), Rejected> {
    if info.param("banned").is_some() { Err(Rejected::reason("banned")) } else { Ok(()) }
}

fn install() -> Result<PrometheusHandle, BuildError> {
    let seconds = Matcher::Suffix("_seconds".to_owned());
    let buckets = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];
    PrometheusBuilder::new().set_buckets_for_metric(seconds, &buckets)?.install_recorder()
}

fn metrics(endpoint: Endpoint<()>, prometheus: PrometheusHandle) -> Router {
    let render = move || {
        let (endpoint, prometheus) = (endpoint.clone(), prometheus.clone());
        async move {
            endpoint.record_gauges().await;
            prometheus.render()
        }
    };
    Router::new().route("/metrics", get(render))
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let prometheus = install().expect("the only recorder");
    let endpoint = Endpoint::builder(connect).channel::<Room>("room:*").build();
    let app = metrics(endpoint.clone(), prometheus).layer(endpoint.layer("/socket"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    axum::serve(listener, app).await
}
