//! The code of docs/authentication.md.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tower_channels::channel::{Error, Result};
use tower_channels::{
    Channel, Close, ConnectInfo, Endpoint, Joined, Payload, Rejected, Reply, Socket, test,
};

#[derive(Deserialize, Serialize)]
struct Claims {
    sub: String,
    admin: bool,
    /// Seconds since 1970.
    exp: u64,
}

/// Signs and verifies tokens. A cheap clone of what the whole application shares.
#[derive(Clone)]
struct Tokens {
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
}

impl Tokens {
    /// `secret` has at least 32 random bytes, and is the same on every node.
    fn new(secret: &[u8]) -> Self {
        let validation = Validation { leeway: 0, ..Validation::new(Algorithm::HS256) };
        let (encoding, decoding) =
            (EncodingKey::from_secret(secret), DecodingKey::from_secret(secret));
        Self { encoding, decoding, validation }
    }

    fn sign(&self, user: &str, admin: bool, lifetime: Duration) -> Result<String> {
        let exp = (SystemTime::now() + lifetime).duration_since(UNIX_EPOCH)?.as_secs();
        let claims = Claims { sub: user.to_owned(), admin, exp };
        Ok(jsonwebtoken::encode(&Header::default(), &claims, &self.encoding)?)
    }

    fn verify(&self, token: &str) -> Result<Claims, Rejected> {
        let verified = jsonwebtoken::decode(token, &self.decoding, &self.validation);
        Ok(verified.map_err(|error| Rejected::reason(error.to_string()))?.claims)
    }
}

/// What the application knows of its users; a database in earnest.
#[derive(Clone, Default)]
struct Access(Arc<RwLock<HashMap<String, HashSet<String>>>>);

impl Access {
    fn allow(&self, user: &str, topic: &str) {
        self.0.write().unwrap().entry(user.to_owned()).or_default().insert(topic.to_owned());
    }

    async fn is_known(&self, user: &str) -> bool {
        self.0.read().unwrap().contains_key(user)
    }

    async fn is_granted(&self, user: &str, topic: &str) -> bool {
        self.0.read().unwrap().get(user).is_some_and(|topics| topics.contains(topic))
    }

    async fn revoke(&self, user: &str) {
        self.0.write().unwrap().remove(user);
    }
}

/// The assigns of a socket.
struct User {
    id: String,
    is_admin: AtomicBool,
    until: SystemTime,
    access: Access,
}

impl User {
    async fn authorize(&self, topic: &str) -> Result<()> {
        if self.is_admin.load(Relaxed) || self.access.is_granted(&self.id, topic).await {
            return Ok(());
        }
        Err(Error::reason("unauthorized"))
    }
}

fn endpoint(tokens: Tokens, access: Access) -> Endpoint<User> {
    let connect = move |info: ConnectInfo| {
        let (tokens, access) = (tokens.clone(), access.clone());
        async move {
            let token = info.auth_token().or(info.param("token"));
            let claims = tokens.verify(token.ok_or(Rejected::reason("no token"))?)?;
            if !access.is_known(&claims.sub).await {
                return Err(Rejected::reason("unknown user"));
            }
            let until = UNIX_EPOCH + Duration::from_secs(claims.exp);
            Ok(User { id: claims.sub, is_admin: claims.admin.into(), until, access })
        }
    };
    Endpoint::builder(connect)
        .id(|user: &User| Some(format!("user:{}", user.id)))
        .expires(|user| Some(user.until))
        .refresh(|user, fresh: User| user.is_admin.store(fresh.is_admin.into_inner(), Relaxed))
        .channel::<Room>("room:*")
        .build()
}

struct Room;

impl Channel for Room {
    type Assigns = User;
    type Info = ();

    async fn join(topic: &str, _: Payload, socket: &Socket<Self>) -> Result<Joined<Self>> {
        socket.assigns().authorize(topic).await?;
        Ok(Self.into())
    }

    /// The client has come back to its session, and the channel is still alive.
    async fn resume(&mut self, _: Payload, socket: &Socket<Self>) -> Result<Option<Payload>> {
        socket.assigns().authorize(socket.topic()).await?;
        Ok(None)
    }
}

async fn log_out_everywhere(user: &str, access: &Access, endpoint: &Endpoint<User>) {
    access.revoke(user).await; // first: `connect` rejects the client that comes back at once
    endpoint.disconnect(&format!("user:{user}"));
}

/// Logged-in users, by the random id in their cookie.
#[derive(Clone, Default)]
struct Logins(Arc<RwLock<HashMap<String, String>>>);

impl Logins {
    async fn connect(&self, info: &ConnectInfo) -> Result<String, Rejected> {
        let id = info.cookie("session").ok_or(Rejected::reason("no cookie"))?;
        let user = self.0.read().unwrap().get(&*id).cloned();
        user.ok_or(Rejected::reason("not logged in"))
    }
}

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

/// An endpoint with one user, ann, who may join `room:1`.
fn application() -> (Endpoint<User>, Tokens, Access) {
    let (tokens, access) = (Tokens::new(SECRET), Access::default());
    access.allow("ann", "room:1");
    (endpoint(tokens.clone(), access.clone()), tokens, access)
}

#[tokio::test]
async fn a_token_is_taken_from_either_place() {
    let (endpoint, tokens, _) = application();
    let token = tokens.sign("ann", false, Duration::from_secs(60)).unwrap();
    let mut ann = test::client(&endpoint).auth_token(&token).connect().await.unwrap();
    assert_eq!(ann.join("room:1", json!({})).await, Reply::ack());
    assert_eq!(ann.join("room:2", json!({})).await, Reply::reason("unauthorized"));
    test::client(&endpoint).param("token", token).connect().await.unwrap();
}

#[tokio::test]
async fn a_forged_or_expired_token_or_none_is_rejected() {
    let (endpoint, tokens, _) = application();
    let refused = test::client(&endpoint).connect().await.unwrap_err();
    assert_eq!(refused, Rejected::reason("no token"));
    let forged = Tokens::new(b"another secret of at least 32 bytes");
    let forged = forged.sign("ann", false, Duration::from_secs(60)).unwrap();
    let refused = test::client(&endpoint).auth_token(&forged).connect().await.unwrap_err();
    assert_eq!(refused, Rejected::reason("InvalidSignature"));
    let past = SystemTime::now() - Duration::from_secs(1);
    let exp = past.duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = Claims { sub: "ann".to_owned(), admin: false, exp };
    let expired = jsonwebtoken::encode(&Header::default(), &claims, &tokens.encoding).unwrap();
    let refused = test::client(&endpoint).auth_token(&expired).connect().await.unwrap_err();
    assert_eq!(refused, Rejected::reason("ExpiredSignature"));
}

#[tokio::test(start_paused = true)]
async fn a_connection_lasts_as_long_as_its_token() {
    let (endpoint, tokens, _) = application();
    let token = tokens.sign("ann", false, Duration::from_secs(3600)).unwrap();
    let mut ann = test::client(&endpoint).auth_token(&token).connect().await.unwrap();
    tokio::time::sleep(Duration::from_secs(3500)).await;
    assert_eq!(ann.join("room:1", json!({})).await, Reply::ack());
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(ann.expect_closed().await, Close::Restart);
}

#[tokio::test]
async fn a_user_is_logged_out_everywhere() {
    let (endpoint, tokens, access) = application();
    let token = tokens.sign("ann", false, Duration::from_secs(60)).unwrap();
    let mut ann = test::client(&endpoint).auth_token(&token).connect().await.unwrap();
    log_out_everywhere("ann", &access, &endpoint).await;
    assert_eq!(ann.expect_closed().await, Close::GoingAway);
    assert_eq!(ann.reconnect().await.unwrap_err(), Rejected::reason("unknown user"));
}

#[tokio::test]
async fn a_permission_that_was_withdrawn_ends_with_the_next_rejoin() {
    let (endpoint, tokens, access) = application();
    let token = tokens.sign("ann", false, Duration::from_secs(60)).unwrap();
    let ann = test::client(&endpoint).auth_token(&token);
    let mut ann = ann.param("session", "0123456789abcdefghijkl").connect().await.unwrap();
    assert_eq!(ann.join("room:1", json!({})).await, Reply::ack());
    access.0.write().unwrap().insert("ann".to_owned(), HashSet::new());
    ann.reconnect().await.unwrap();
    assert_eq!(ann.join("room:1", json!({})).await, Reply::reason("unauthorized"));
}

#[tokio::test]
async fn a_fresh_token_may_say_less_than_the_one_before() {
    let (endpoint, tokens, _) = application();
    let connect = |admin| {
        let token = tokens.sign("ann", admin, Duration::from_secs(60)).unwrap();
        let ann = test::client(&endpoint).auth_token(&token);
        ann.param("session", "0123456789abcdefghijkl").connect()
    };
    let mut admin = connect(true).await.unwrap();
    assert_eq!(admin.join("room:2", json!({})).await, Reply::ack());
    drop(admin);
    let mut user = connect(false).await.unwrap();
    assert_eq!(user.join("room:2", json!({})).await, Reply::reason("unauthorized"));
}

#[tokio::test]
async fn a_cookie_names_the_login() {
    let logins = Logins::default();
    logins.0.write().unwrap().insert("r4nd0m".to_owned(), "ann".to_owned());
    let connect = move |info: ConnectInfo| {
        let logins = logins.clone();
        async move {
            let id = logins.connect(&info).await?;
            let is_admin = AtomicBool::new(false);
            Ok(User { id, is_admin, until: SystemTime::now(), access: Access::default() })
        }
    };
    let endpoint = Endpoint::builder(connect).channel::<Room>("room:*").build();
    test::client(&endpoint).header("cookie", "session=r4nd0m").connect().await.unwrap();
    let refused =
        test::client(&endpoint).header("cookie", "session=x").connect().await.unwrap_err();
    assert_eq!(refused, Rejected::reason("not logged in"));
}
