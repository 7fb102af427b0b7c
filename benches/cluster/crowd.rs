//! Three nodes that are restarted, or killed, one after the other, under a crowd of clients that cost as little as they can:
//! what of the time until they are back is the nodes'.

mod figures;
mod member;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tower_channels::channel::Result;
use tower_channels::cluster::Listen;
use tower_channels::{Channel, ConnectInfo, Endpoint, Joined, Payload, Presence, Rejected, Socket};

use self::figures::{Figures, figures};
use self::member::{Member, Path, Paths};
use super::engine::Address;
use super::support::server::Server;
use super::support::{Thread, allowed};
use super::travel::arrival;

const NODES: usize = 3;
/// Clients per room, and per lobby, which has presence.
const ROOM: usize = 300;
const LOBBY: usize = 50;
/// How often each node broadcasts, to one room after the other: 20 times a second in all while one is being restarted, and says
/// nothing.
const PERIOD: Duration = Duration::from_millis(100);
const SHUTDOWN: Duration = Duration::from_secs(30);
/// So many clients connect at once.
const AT_ONCE: usize = 50;
const MOMENT: Duration = Duration::from_millis(100);
/// How long a node that was killed is away: longer than the others need to know that it is.
const AWAY: Duration = Duration::from_secs(8);

/// A room or a lobby, which says why it was joined.
struct Place;

impl Channel for Place {
    type Assigns = String;
    type Info = ();

    async fn join(_: &str, _: Payload, socket: &Socket<Self>) -> Result<Joined<Self>> {
        Ok(Joined::new(Self).reply(arrival(socket)?))
    }

    async fn resume(&mut self, _: Payload, _: &Socket<Self>) -> Result<Option<Payload>> {
        Ok(Some(Payload::json(&"resumed")?))
    }

    async fn after_join(&mut self, socket: &Socket<Self>) -> Result<()> {
        if socket.topic().starts_with("lobby:") {
            Presence::track(socket, socket.assigns(), serde_json::json!({}))?;
            Presence::push_state(socket);
        }
        Ok(())
    }
}

/// What is done to a crowd.
#[derive(Clone, Copy)]
pub(crate) struct Form {
    pub(crate) clients: usize,
    /// Nodes are killed, and rooms have a history, rather than that nodes move their sessions before they end.
    pub(crate) kills: bool,
    /// Clients connect over pipes in memory, rather than over sockets.
    pub(crate) in_memory: bool,
}

struct Node {
    server: Server,
    endpoint: Endpoint<String>,
    /// Whether it broadcasts.
    speaks: Arc<AtomicBool>,
}

struct World {
    engine: Address,
    form: Form,
    rooms: usize,
    /// The room of each broadcast, and when it was sent.
    sent: Mutex<Vec<(usize, Instant)>>,
    /// Who has left in the eyes of a node.
    left: Mutex<HashSet<String>>,
}

pub(crate) fn run(engine: Address, form: Form) {
    let Form { clients: count, kills, in_memory } = form;
    if !in_memory {
        allowed(2 * count + 1000);
    }
    let world = Arc::new(World {
        engine,
        form,
        rooms: count.div_ceil(ROOM),
        sent: Mutex::default(),
        left: Mutex::default(),
    });
    let mut nodes: Vec<_> = (0..NODES).map(|_| start(&world)).collect();
    let paths = Arc::new(Paths::new(nodes.iter().map(|(_, path)| path.clone())));
    let clients = Server::new(1);
    let (over, is_over) = watch::channel(false);
    let (members, entered) = (Arc::<Mutex<Vec<_>>>::default(), Arc::new(AtomicUsize::new(0)));
    for number in 0..count {
        let (room, lobby) = (number % world.rooms, number % count.div_ceil(LOBBY));
        let member = Member::new(number, room, lobby, kills);
        let life = member.live(Arc::clone(&paths), Arc::clone(&entered), is_over.clone());
        let members = Arc::clone(&members);
        clients.run(async move { members.lock().expect("no panic").push(tokio::spawn(life)) });
        while entered.load(Ordering::Relaxed) + AT_ONCE <= number {
            sleep(Duration::from_millis(1));
        }
    }
    while entered.load(Ordering::Relaxed) < count {
        sleep(MOMENT);
    }
    let speak = |nodes: &[(Node, _)]| {
        nodes.iter().for_each(|(node, _)| node.speaks.store(true, Ordering::Relaxed));
    };
    speak(&nodes);
    sleep(20 * MOMENT);
    let (began, mut used) = (Instant::now(), 0.0);
    let used_by_clients = clients.seconds(Thread::cpu);
    let cpu = |nodes: &[(Node, _)]| {
        nodes.iter().map(|(node, _)| node.server.seconds(Thread::cpu)).sum::<f64>()
    };
    let used_before = cpu(&nodes);
    for index in 0..NODES {
        let (Node { server, endpoint, speaks }, _) = &nodes[index];
        paths.set(index, None);
        speaks.store(false, Ordering::Relaxed);
        if kills {
            // What it has broadcast is kept.
            sleep(5 * MOMENT);
        } else {
            let ending = endpoint.clone();
            let has_moved = server.run(async move { ending.shutdown(SHUTDOWN).await });
            assert!(has_moved, "all move in time");
        }
        used += server.seconds(Thread::cpu);
        // Its runtime ends with all tasks, and with their connections.
        drop(nodes.remove(index));
        if kills {
            sleep(AWAY);
        }
        nodes.insert(index, start(&world));
        while nodes
            .iter()
            .any(|(node, _)| node.endpoint.nodes().iter().filter(|node| node.is_up).count() < NODES)
        {
            sleep(MOMENT);
        }
        paths.set(index, Some(nodes[index].1.clone()));
        speak(&nodes);
    }
    sleep(20 * MOMENT);
    let seconds = began.elapsed().as_secs_f64();
    used += cpu(&nodes) - used_before;
    let used_by_clients = clients.seconds(Thread::cpu) - used_by_clients;
    nodes.iter().for_each(|(node, _)| node.speaks.store(false, Ordering::Relaxed));
    sleep(20 * MOMENT);
    let left = std::mem::take(&mut *world.left.lock().expect("no panic")).len();
    over.send_replace(true);
    let members = std::mem::take(&mut *members.lock().expect("no panic"));
    let members = clients.run(async move {
        let mut all = Vec::new();
        for member in members {
            all.push(member.await.expect("no panic"));
        }
        all
    });
    let sent = world.sent.lock().expect("no panic");
    let figures = figures(&members, &sent);
    println!(
        "{:>7}{:>9}{:>9}{:>6}{:>7}{:>6}{:>6}{:>6}{:>6}{:>8}{:>8}{:>8}{:>8}{:>9}",
        "clients",
        "returns",
        "due",
        "lost",
        "missed",
        "twice",
        "anew",
        "gaps",
        "left",
        "p50, ms",
        "p99",
        "max",
        "nodes",
        "clients"
    );
    let Figures { due, lost, missed, twice, anew, gaps, mut returns } = figures;
    returns.sort_by(f64::total_cmp);
    let at = |part: usize| returns.get(returns.len() * part / 100).copied().unwrap_or_default();
    let max = returns.last().copied().unwrap_or_default();
    let share = |used: f64| format!("{:.0} %", used / seconds * 100.0);
    println!(
        "{count:>7}{:>9}{due:>9}{lost:>6}{missed:>7}{twice:>6}{anew:>6}{gaps:>6}{left:>6}{:>8.0}{:>8.0}{max:>8.0}{:>8}{:>9}\n",
        returns.len(),
        at(50),
        at(99),
        share(used),
        share(used_by_clients),
    );
}

/// Starts a node, which broadcasts while it speaks, and returns the way to it.
fn start(world: &Arc<World>) -> (Node, Path) {
    let server = Server::new(1);
    let World { engine, form: Form { kills, in_memory, .. }, .. } = **world;
    let node = server.run(async move {
        if kills {
            engine.node_with_history("killed", "room:*").await
        } else {
            engine.node("crowd", Listen::All).await
        }
    });
    let connect = async |info: ConnectInfo| {
        Ok::<_, Rejected>(info.param("user").unwrap_or_default().to_owned())
    };
    let builder = Endpoint::builder(connect).id(|user| Some(user.clone()));
    let builder = builder.channel::<Place>("room:*").channel::<Place>("lobby:*");
    let endpoint = builder.pubsub(node).build();
    let speaks = Arc::new(AtomicBool::new(false));
    let (watching, sending) = (Arc::clone(world), Arc::clone(world));
    let (node, of, says) = (endpoint.clone(), endpoint.clone(), Arc::clone(&speaks));
    server.run(async move {
        tokio::spawn(watch(of, watching));
        tokio::spawn(speak(node, sending, says));
    });
    let path = if in_memory {
        Path::Pipe(Arc::new(server.pipes(endpoint.service())))
    } else {
        Path::Socket(server.http(endpoint.service()))
    };
    (Node { server, endpoint, speaks }, path)
}

async fn speak(node: Endpoint<String>, world: Arc<World>, speaks: Arc<AtomicBool>) {
    let mut period = tokio::time::interval(PERIOD);
    loop {
        period.tick().await;
        if speaks.load(Ordering::Relaxed) {
            let mut sent = world.sent.lock().expect("no panic");
            let (id, room) = (sent.len(), sent.len() % world.rooms);
            sent.push((room, Instant::now()));
            drop(sent);
            node.broadcast(&format!("room:{room}"), "n", Payload::json(&id).expect("a number"));
        }
    }
}

/// Notes who has no entry left.
async fn watch(node: Endpoint<String>, world: Arc<World>) {
    let mut changes = node.presence().changes();
    let mut entries = HashMap::<(String, String), HashSet<String>>::new();
    while let Some(diff) = changes.next().await {
        let diff = diff.expect("it keeps up");
        for (key, present) in diff.joins.iter() {
            let entries = entries.entry((diff.topic.to_string(), key.to_owned())).or_default();
            entries.extend(present.metas().iter().map(|meta| meta.phx_ref().to_owned()));
        }
        for (key, present) in diff.leaves.iter() {
            let entries = entries.entry((diff.topic.to_string(), key.to_owned())).or_default();
            let had_any = !entries.is_empty();
            for meta in present.metas() {
                entries.remove(meta.phx_ref());
            }
            if had_any && entries.is_empty() {
                world.left.lock().expect("no panic").insert(key.to_owned());
            }
        }
    }
}
