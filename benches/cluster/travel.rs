//! A WebSocket client with a resumable session, which goes from node to node.

use std::net::SocketAddr;

use tower_channels::channel::Result;
use tower_channels::{
    Arrival, Channel, ConnectInfo, Endpoint, Joined, Payload, PubSub, Rejected, Reply,
    ResumeConfig, Socket,
};

use super::connection::{Connection, number};
use super::support;

/// The topics of a client.
pub(crate) const TOPICS: usize = 4;
/// The messages of a topic that wait for the client, and the bytes of each.
const MESSAGES: usize = 5;
const SIZE: usize = 512;
/// How often a client connects that the server closes.
const ATTEMPTS: usize = 10;

/// The reply to a join: where its client has come from.
pub(crate) fn arrival<C: Channel>(socket: &Socket<C>) -> Result<Payload> {
    let arrival = match socket.arrival() {
        Arrival::Moved { has_gap: false, .. } => "moved",
        Arrival::Recovered { has_gap: false } => "recovered",
        Arrival::Moved { .. } | Arrival::Recovered { .. } => "gap",
        _ => "new",
    };
    Ok(Payload::json(&arrival)?)
}

/// A channel that says where its client has come from, and sends it what is to wait.
struct Bag;

impl Channel for Bag {
    type Assigns = String;
    type Info = ();

    async fn join(_: &str, _: Payload, socket: &Socket<Self>) -> Result<Joined<Self>> {
        Ok(Joined::new(Self).reply(arrival(socket)?))
    }

    async fn resume(&mut self, _: Payload, _: &Socket<Self>) -> Result<Option<Payload>> {
        Ok(Some(Payload::json(&"resumed")?))
    }

    async fn handle_in(&mut self, _: &str, _: Payload, socket: &Socket<Self>) -> Result<Reply> {
        let message = Payload::json(&"x".repeat(SIZE))?;
        (0..MESSAGES).for_each(|_| socket.push("waits", message.clone()));
        Ok(Reply::None)
    }

    async fn pack(&mut self, _: &Socket<Self>) -> Option<Payload> {
        Payload::json(&"packed").ok()
    }
}

/// Serves a node's part of such sessions.
pub(crate) fn endpoint(node: PubSub) -> Endpoint<String> {
    let connect = async |info: ConnectInfo| {
        Ok::<_, Rejected>(info.param("user").unwrap_or_default().to_owned())
    };
    // Its clients lose every connection soon.
    let resume = ResumeConfig::new().flapping_limit(0);
    let builder = Endpoint::builder(connect).id(|user| Some(user.clone())).resume(resume);
    builder.channel::<Bag>("bag:*").pubsub(node).build()
}

/// Why its channels were joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    New,
    Resumed,
    Moved,
    Gap,
    /// They were not: the server has closed a connection, and the client has come again.
    Closed,
}

pub(crate) struct Traveller {
    number: usize,
    connection: Option<Connection>,
    /// The last number that it has received, and the one that it says when it connects.
    last: u64,
    known: u64,
    /// Whether the server has closed a connection since it came last.
    is_closed: bool,
}

impl Traveller {
    pub(crate) fn new(number: usize) -> Self {
        Self { number, connection: None, last: 0, known: 0, is_closed: false }
    }

    /// Connects to a node, joins its topics, and receives what waits.
    pub(crate) async fn come(&mut self, node: SocketAddr) -> Came {
        for _ in 0..ATTEMPTS {
            let (number, known) = (self.number, self.known);
            let query = format!("user=u{number}&session=traveller-{number:016}&received={known}");
            let mut connection = Connection::open(node, &query).await.expect("a WebSocket");
            let came = self.enter(&mut connection).await;
            if let Some(came) = came {
                self.connection = Some(connection);
                return if self.is_closed { Came::Closed } else { came };
            }
            self.is_closed = true;
        }
        panic!("the server closes all connections");
    }

    /// `None` if the server closes the connection.
    async fn enter(&mut self, connection: &mut Connection) -> Option<Came> {
        let joins = (0..TOPICS)
            .flat_map(|topic| support::push("1", &bag(self.number, topic), "phx_join", "{}"));
        connection.write(&joins.collect::<Vec<_>>()).await?;
        let (mut joined, mut waited, mut came) = (0, 0, Came::Moved);
        while joined < TOPICS || (came != Came::New && waited < TOPICS * MESSAGES) {
            let message = connection.next().await?;
            if let Some(number) = number(&message) {
                (self.last, waited) = (number, waited + 1);
                continue;
            }
            joined += 1;
            let names = [
                ("new", Came::New),
                ("resumed", Came::Resumed),
                ("moved", Came::Moved),
                ("gap", Came::Gap),
            ];
            let is_it = |name: &str| message.contains(&format!(r#""response":"{name}""#));
            let found = names.into_iter().find(|(name, _)| is_it(name));
            came = found.unwrap_or_else(|| panic!("not joined: {message}")).1;
        }
        Some(came)
    }

    /// Loses its connection after messages that it seems not to have received.
    pub(crate) async fn lose(&mut self) {
        let mut connection = self.connection.take().expect("connected");
        (self.known, self.is_closed) = (self.last, false);
        let fills = (0..TOPICS)
            .flat_map(|topic| support::push("2", &bag(self.number, topic), "fill", "{}"));
        connection.write(&fills.collect::<Vec<_>>()).await.expect("written");
        for _ in 0..TOPICS * MESSAGES {
            let Some(message) = connection.next().await else { return self.is_closed = true };
            self.last = number(&message).expect("a message with a number");
        }
    }
}

fn bag(client: usize, topic: usize) -> String {
    format!("bag:{client}-{topic}")
}
