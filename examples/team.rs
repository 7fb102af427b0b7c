//! A team that talks, and what an application has around its channels: copy from it.
//!
//! ```text
//! SECRET=at-least-32-random-bytes-of-secret cargo run --example team
//! curl -d ann http://127.0.0.1:4000/login      returns a token: the `authToken` of a client
//! curl http://127.0.0.1:4000/metrics
//! ```
//!
//! The users are ann, bob and eve, without passwords. Ann and bob are members of `team:red`.

#[path = "team/store.rs"]
mod store;

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use bytes::Bytes;
use jsonwebtoken::{DecodingKey, EncodingKey, Header, Validation};
use metrics_exporter_prometheus::PrometheusBuilder;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tower_channels::channel::{OrReply, Result};
use tower_channels::{
    Channel, ConnectInfo, Endpoint, Joined, Payload, Presence, Rate, Rejected, Reply, Socket,
};

use store::Store;

/// What all requests and sockets share.
#[derive(Clone)]
struct App {
    store: Store,
    secret: Arc<[u8]>,
}

/// The content of a token. `login` is the number of the user's login, which a logout changes.
#[derive(Deserialize, Serialize)]
struct Claims {
    sub: String,
    exp: u64,
    login: i64,
}

impl App {
    fn sign(&self, user: &str, login: i64) -> jsonwebtoken::errors::Result<String> {
        let exp = jsonwebtoken::get_current_timestamp() + 3600;
        let claims = Claims { sub: user.to_owned(), exp, login };
        jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(&self.secret))
    }

    fn verify(&self, token: &str) -> jsonwebtoken::errors::Result<Claims> {
        let validation = Validation { leeway: 0, ..Validation::default() };
        let key = DecodingKey::from_secret(&self.secret);
        Ok(jsonwebtoken::decode(token, &key, &validation)?.claims)
    }
}

/// The assigns of a socket.
struct User {
    store: Store,
    name: String,
    /// In seconds since 1970.
    until: u64,
}

async fn connect(app: App, info: ConnectInfo) -> Result<User, Rejected> {
    let token = info.auth_token().ok_or(Rejected::reason("no token"))?;
    let claims = app.verify(token).map_err(|error| Rejected::reason(error.to_string()))?;
    if app.store.login(&claims.sub).await? != Some(claims.login) {
        return Err(Rejected::reason("logged out"));
    }
    Ok(User { store: app.store, name: claims.sub, until: claims.exp })
}

fn endpoint(app: App) -> Endpoint<User> {
    Endpoint::builder(move |info| connect(app.clone(), info))
        .id(|user: &User| Some(format!("user:{}", user.name)))
        .expires(|user| Some(UNIX_EPOCH + Duration::from_secs(user.until)))
        .rate(Rate::new(20, 1 << 20))
        .channel::<Team>("team:*")
        .build()
}

/// One member in one team.
struct Team;

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
        let User { store, name, .. } = socket.assigns();
        store.authorize(topic, name).await?;
        Ok(Self.into())
    }

    async fn resume(&mut self, _: Payload, socket: &Socket<Self>) -> Result<Option<Payload>> {
        let User { store, name, .. } = socket.assigns();
        store.authorize(socket.topic(), name).await?;
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
        let (User { store, name, .. }, team) = (socket.assigns(), socket.topic());
        match msg.parse_event(event)? {
            In::NewMsg { body } => {
                let id = store.add_message(team, name, &body).await?;
                socket.broadcast("new_msg", json!({ "id": id, "from": name, "body": body }));
            }
            In::Upload(file) => {
                let id = store.add_file(team, name, &file).await?;
                socket.broadcast("uploaded", json!({ "id": id, "from": name }));
            }
            In::CountMessages => {
                let (store, team, later) = (store.clone(), team.to_owned(), socket.reply_ref());
                tokio::spawn(async move {
                    let count = store.count_messages(&team).await;
                    later.reply(count.map_or(Reply::reason("failed"), |n| Reply::ok(json!(n))));
                });
                return Ok(Reply::None);
            }
            In::Invite { user } => {
                store.add_member(team, &user).await?.or_reply("no such user")?;
                let invitation = json!({ "team": team, "from": name });
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
    app.sign(&user, login).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().init();
    let prometheus = PrometheusBuilder::new().install_recorder()?; // before `build`
    let secret = std::env::var("SECRET")?.into_bytes().into();
    let app = App { store: Store::open("team.sqlite")?, secret };
    let endpoint = endpoint(app.clone());
    let measured = endpoint.clone();
    let metrics = async move || {
        measured.record_gauges().await;
        prometheus.render()
    };
    let router = axum::Router::new()
        .nest_service("/socket", endpoint.service())
        .route("/login", post(log_in))
        .route("/metrics", get(metrics))
        .with_state(app);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:4000").await?;
    let stop = async move {
        terminated().await;
        endpoint.shutdown(Duration::from_secs(20)).await;
    };
    Ok(axum::serve(listener, router).with_graceful_shutdown(stop).await?)
}

/// Waits for SIGTERM, which service managers send.
async fn terminated() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        signal(SignalKind::terminate()).expect("a handler of SIGTERM").recv().await;
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await.expect("a handler of Ctrl-C");
}

#[cfg(test)]
mod tests {
    use super::*;
    use tower_channels::test::{self, Client};

    /// Ann and bob in `team:red`, and eve, a user without a team.
    async fn team() -> [Client<User>; 3] {
        let (store, secret) = (Store::open(":memory:").unwrap(), b"secret".as_slice().into());
        let app = App { store, secret };
        let signed = ["ann", "bob", "eve"].map(|user| app.sign(user, 1).unwrap());
        let endpoint = endpoint(app);
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
        assert_eq!(bob.expect("invited").await, json!({ "team": "team:red", "from": "ann" }));
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
