//! A team that talks, and what an application has around its channels: copy from it.
//!
//! ```text
//! SECRET=at-least-32-random-bytes-of-secret cargo run --example team
//! curl -d ann http://127.0.0.1:4000/login      returns a token: the `authToken` of a client
//! curl http://127.0.0.1:4000/metrics
//! ```
//!
//! The users are ann, bob and eve, who have no passwords. Ann and bob are members of `team:red`.

#[path = "team/server.rs"]
mod server;
#[path = "team/store.rs"]
mod store;
#[path = "team/tokens.rs"]
mod tokens;

use std::time::{Duration, SystemTime};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use bytes::Bytes;
use metrics_exporter_prometheus::PrometheusBuilder;
use serde::Deserialize;
use serde_json::{Value, json};
use tower_channels::channel::{OrReply, Result};
use tower_channels::{
    Channel, ConnectInfo, Endpoint, Joined, Payload, Presence, Rate, Rejected, Reply, Socket,
};

use store::Store;
use tokens::Tokens;

/// What all requests and sockets share.
#[derive(Clone)]
struct App {
    store: Store,
    tokens: Tokens,
}

/// The assigns of a socket.
struct User {
    app: App,
    name: String,
    until: SystemTime,
}

async fn connect(app: App, info: ConnectInfo) -> Result<User, Rejected> {
    let token = info.auth_token().ok_or(Rejected::reason("no token"))?;
    let claims = app.tokens.verify(token)?;
    if app.store.login(&claims.sub).await? != Some(claims.login) {
        return Err(Rejected::reason("logged out"));
    }
    Ok(User { until: claims.expires(), name: claims.sub, app })
}

fn endpoint(app: App) -> Endpoint<User> {
    Endpoint::builder(move |info| connect(app.clone(), info))
        .id(|user: &User| Some(format!("user:{}", user.name)))
        .expires(|user| Some(user.until))
        .rate(Rate::new(20, 1 << 20))
        .channel::<Team>("team:*")
        .build()
}

/// One member in one team.
struct Team {
    id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum In {
    NewMsg { body: String },
    Upload(Bytes),
    CountMessages,
    Invite { user: String },
    LogOut,
}

/// Time to tell the client how many are online.
#[derive(Clone)]
struct Tick;

impl Channel for Team {
    type Assigns = User;
    type Info = Tick;
    const INTERCEPT: &'static [&'static str] = &["new_msg"];

    async fn join(topic: &str, _: Payload, socket: &Socket<Self>) -> Result<Joined<Self>> {
        let id = topic.strip_prefix("team:").or_reply("no such team")?;
        let User { app, name, .. } = socket.assigns();
        app.store.authorize(id, name).await?;
        Ok(Self { id: id.to_owned() }.into())
    }

    async fn resume(&mut self, _: Payload, socket: &Socket<Self>) -> Result<Option<Payload>> {
        let User { app, name, .. } = socket.assigns();
        app.store.authorize(&self.id, name).await?;
        Ok(None)
    }

    async fn after_join(&mut self, socket: &Socket<Self>) -> Result<()> {
        let name = &socket.assigns().name;
        Presence::track(socket, name, json!({}))?;
        Presence::push_state(socket);
        socket.subscribe(&format!("user:{name}"))?;
        socket.send_every(Duration::from_secs(30), Tick);
        Ok(())
    }

    async fn handle_in(
        &mut self,
        event: &str,
        msg: Payload,
        socket: &Socket<Self>,
    ) -> Result<Reply> {
        let User { app: App { store, .. }, name, .. } = socket.assigns();
        match msg.parse_event(event)? {
            In::NewMsg { body } => {
                let id = store.add_message(&self.id, name, &body).await?;
                socket.broadcast("new_msg", json!({ "id": id, "from": name, "body": body }));
            }
            In::Upload(file) => {
                let id = store.add_file(&self.id, name, &file).await?;
                socket.broadcast("uploaded", json!({ "id": id, "from": name }));
            }
            In::CountMessages => {
                let (store, team, later) = (store.clone(), self.id.clone(), socket.reply_ref());
                tokio::spawn(async move {
                    let count = store.count_messages(&team).await;
                    later.reply(count.map_or(Reply::reason("failed"), |n| Reply::ok(json!(n))));
                });
                return Ok(Reply::None);
            }
            In::Invite { user } => {
                store.add_member(&self.id, &user).await?.or_reply("no such user")?;
                let invitation = json!({ "team": self.id, "from": name });
                socket.pubsub().broadcast(&format!("user:{user}"), "invited", invitation);
            }
            In::LogOut => {
                store.end_logins(name).await?;
                socket.pubsub().disconnect(&format!("user:{name}"));
            }
        }
        Ok(Reply::ack())
    }

    /// Marks a member's own messages.
    async fn handle_out(&mut self, event: &str, msg: Payload, socket: &Socket<Self>) -> Result<()> {
        let mut msg = msg.parse::<Value>()?;
        msg["mine"] = json!(msg["from"] == *socket.assigns().name);
        socket.push(event, msg);
        Ok(())
    }

    /// Passes on what is sent to the user, from anywhere in the program.
    async fn handle_broadcast(
        &mut self,
        _: &str,
        event: &str,
        msg: Payload,
        socket: &Socket<Self>,
    ) -> Result<()> {
        socket.push(event, msg);
        Ok(())
    }

    async fn handle_info(&mut self, Tick: Tick, socket: &Socket<Self>) -> Result<()> {
        socket.push("online", json!(socket.presence().count(socket.topic())));
        Ok(())
    }
}

async fn log_in(State(app): State<App>, user: String) -> Result<String, StatusCode> {
    let login = app.store.login(&user).await.ok().flatten().ok_or(StatusCode::FORBIDDEN)?;
    app.tokens.sign(&user, login).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().init();
    let metrics = PrometheusBuilder::new().install_recorder()?; // before `build`
    let store = Store::open("team.sqlite")?;
    let app = App { store, tokens: Tokens::new(&std::env::var("SECRET")?) };
    let endpoint = endpoint(app.clone());
    let router = axum::Router::new()
        .nest_service("/socket", endpoint.service())
        .route("/login", post(log_in))
        .route("/metrics", get(async move || metrics.render()))
        .with_state(app);
    Ok(server::serve("127.0.0.1:4000", router, &endpoint).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tower_channels::test::{self, Client};

    /// Ann and bob in `team:red`, and eve, who is not.
    async fn team() -> [Client<User>; 3] {
        let (store, tokens) = (Store::open(":memory:").unwrap(), Tokens::new("secret"));
        let signed = ["ann", "bob", "eve"].map(|user| tokens.sign(user, 1).unwrap());
        let endpoint = endpoint(App { store, tokens });
        let clients = signed.map(|token| test::client(&endpoint).auth_token(&token).connect());
        let mut clients = futures_util::future::try_join_all(clients).await.unwrap();
        for client in &mut clients[..2] {
            assert_eq!(client.join("team:red", json!({})).await, Reply::ack());
        }
        clients.try_into().unwrap()
    }

    #[tokio::test]
    async fn everyone_gets_a_message_and_it_is_counted() {
        let [mut ann, mut bob, _] = team().await;
        ann.push("team:red", "new_msg", json!({ "body": "hi" })).await;
        for (client, mine) in [(&mut ann, true), (&mut bob, false)] {
            let hi = json!({ "id": 1, "from": "ann", "body": "hi", "mine": mine });
            assert_eq!(client.expect("new_msg").await, hi);
        }
        assert_eq!(bob.push("team:red", "count_messages", json!({})).await, Reply::ok(json!(1)));
    }

    #[tokio::test]
    async fn an_invitation_admits_and_notifies() {
        let [mut ann, mut bob, mut eve] = team().await;
        assert_eq!(eve.join("team:red", json!({})).await, Reply::reason("not a member"));
        for user in ["eve", "bob"] {
            ann.push("team:red", "invite", json!({ "user": user })).await;
        }
        assert_eq!(eve.join("team:red", json!({})).await, Reply::ack());
        assert_eq!(bob.expect("invited").await, json!({ "team": "red", "from": "ann" }));
    }

    #[tokio::test(start_paused = true)]
    async fn every_thirty_seconds_the_client_learns_who_is_online() {
        let [mut ann, _bob, _eve] = team().await;
        ann.refute("online", Duration::from_secs(29)).await;
        assert_eq!(ann.expect("online").await, json!(2));
    }

    #[tokio::test]
    async fn a_logout_ends_every_connection_and_the_token() {
        let [mut ann, ..] = team().await;
        ann.send("team:red", "log_out", json!({}));
        ann.expect_closed().await;
        assert_eq!(ann.reconnect().await.unwrap_err(), Rejected::reason("logged out"));
    }
}
