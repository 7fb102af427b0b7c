//! What a dashboard costs the endpoint that it shows: server CPU per delivery and per echo of four endpoints, each with its
//! clients and on a thread of its own, in alternating turns. Two have no dashboard, so that their ratio shows how exact the
//! others are; one has a dashboard that nobody looks at, and one a page that is open. What an open page costs by itself is
//! measured while no client sends.
//!
//! `cargo bench --bench dashboard`; each of `CONNECTIONS` (default 1000) needs eight file descriptors.

mod support;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::Router;
use tower_channels::{Endpoint, WebSocketConfig};
use tower_channels_dashboard::{Access, Dashboard, Parts};

use self::support::crowd::Crowd;
use self::support::room::Room;
use self::support::server::{Costs, Server};
use self::support::{Thread, connections, frame, push, upgrade};

const TURNS: usize = 31;
const ECHO_CLIENTS: usize = 64;
/// The number of messages per run when several are in flight.
const MESSAGES: usize = 12;
const IDLE: Duration = Duration::from_secs(12);

fn main() {
    let connections = connections(1000, 8);
    let subjects = [false, false, true, true].map(|it| Subject::new(it, connections));
    let [.., mounted, looked_at] = &subjects;
    let page = Page::open(looked_at.address, None);
    let ping = mounted.crowd.record("room:a", "ping", 64);
    let text = mounted.crowd.record("room:a", "new_msg", 64);

    println!(
        "{connections} connections; server CPU in us without a dashboard, and ratios to it; medians\n"
    );
    println!("{:<38}{:>7}{:>12}{:>12}{:>12}", "", "us", "without", "mounted", "looked at");
    let row = |what: &str, work: &dyn Fn(&Crowd) -> usize| {
        let mut costs: [Costs; 4] = Default::default();
        for _ in 0..TURNS {
            for (costs, subject) in costs.iter_mut().zip(&subjects) {
                subject.server.turn(costs, || work(&subject.crowd));
            }
        }
        let [without, again, mounted, looked_at] = costs;
        let [again, mounted, looked_at] = [again, mounted, looked_at].map(|it| it.ratio(&without));
        println!("{what:<38}{:>7.2}{again:>12.2}{mounted:>12.2}{looked_at:>12.2}", without.us());
    };
    row("echo of 64 B, 64 clients", &|crowd| crowd.echo(&ping, ECHO_CLIENTS, 16));
    row("delivery of 64 B, one in flight", &|crowd| crowd.publish(&text, 1, 1));
    row("delivery of 64 B, four in flight", &|crowd| crowd.publish(&text, 4, MESSAGES));

    println!("\nCPU while no client sends, in percent of a core\n");
    let idle = |what: &str, subject: &Subject| {
        let before = subject.server.seconds(Thread::cpu);
        thread::sleep(IDLE);
        let used = subject.server.seconds(Thread::cpu) - before;
        println!("{what:<38}{:>9.4}", used / IDLE.as_secs_f64() * 100.0);
    };
    idle("mounted", mounted);
    idle("a page with the overview", looked_at);
    page.close();
    let page = Page::open(looked_at.address, Some(r#"{"order":"queued"}"#));
    idle("a page with the sessions in an order", looked_at);
    page.close();
}

/// An endpoint with its clients.
struct Subject {
    server: Server,
    address: SocketAddr,
    crowd: Crowd,
}

impl Subject {
    fn new(has_dashboard: bool, connections: usize) -> Self {
        // Most clients only listen.
        let config = WebSocketConfig::new().idle_timeout(Duration::from_secs(3600));
        let endpoint = Endpoint::builder(|_| async { Ok(()) }).channel::<Room>("room:*");
        let endpoint = endpoint.websocket(config).build();
        let mut app = Router::new().nest_service("/socket", endpoint.service());
        if has_dashboard {
            let dashboard = Dashboard::new(&endpoint);
            let dashboard = dashboard.authorize(|_: Parts| async { Access::ALL });
            app = app.nest_service("/dashboard", dashboard);
        }
        let server = Server::new(1);
        let address = server.http(app);
        let crowd = Crowd::join(address, "room:a", connections);
        Self { server, address, crowd }
    }
}

/// A page that is open, which reads what it is sent.
struct Page {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Page {
    /// Opens a page. It asks for a list of sessions every two seconds, if it wants one.
    fn open(server: SocketAddr, list: Option<&'static str>) -> Self {
        let mut client = upgrade(server, "/dashboard");
        client.write_all(&push("1", "dashboard", "phx_join", "{}")).expect("written");
        let is_over = Arc::<AtomicBool>::default();
        let thread = {
            let is_over = Arc::clone(&is_over);
            thread::spawn(move || look(&client, list, &is_over))
        };
        Self { is_over, thread }
    }

    fn close(self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().expect("no panic");
    }
}

/// Asks with every second sample, of which there is one in a second.
fn look(mut client: &TcpStream, list: Option<&str>, is_over: &AtomicBool) {
    let mut samples = 0;
    while !is_over.load(Ordering::Relaxed) {
        let received = String::from_utf8_lossy(&frame(client)).into_owned();
        assert!(!received.contains(r#""status":"error""#), "{received}");
        if !received.contains(r#""dashboard","sample""#) {
            continue;
        }
        samples += 1;
        let request = match list {
            Some(list) if samples % 2 == 0 => push("2", "dashboard", "sessions", list),
            None if samples % 30 == 0 => push("2", "phoenix", "heartbeat", "{}"),
            _ => continue,
        };
        client.write_all(&request).expect("written");
    }
}
