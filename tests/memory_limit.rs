//! A server whose memory the system limits, and thousands of clients that send and do not read.
//!
//! Takes three minutes in a debug build, and 10,000 file descriptors: `cargo test --test memory_limit -- --ignored`.

#![cfg(unix)]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tower_channels::channel::Result;
use tower_channels::{Channel, Endpoint, Joined, Payload, Reply, Socket};

/// What the system gives the server, in KiB of address space.
const SYSTEM_LIMIT: usize = 400_000;

/// What the server gives its clients.
const BUDGET: usize = 200 << 20;

const CLIENTS: usize = 5000;

/// What each client would be sent if it read: together 25 times the budget.
const UNREAD: (usize, usize) = (64, 16 << 10);

/// Set for the process that is the server.
const SERVES: &str = "MEMORY_LIMIT_SERVES";

struct Echo;

impl Channel for Echo {
    type Assigns = ();
    type Info = ();

    async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        Ok(Self.into())
    }

    async fn handle_in(&mut self, _: &str, msg: Payload, _: &Socket<Self>) -> Result<Reply> {
        Ok(Reply::ok(msg))
    }
}

/// Runs in the limited process.
#[test]
#[ignore = "the server of the other test"]
fn serve() {
    if std::env::var_os(SERVES).is_none() {
        return;
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let endpoint =
            Endpoint::builder(|_| async { Ok(()) }).memory(BUDGET).channel::<Echo>("echo").build();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        println!("\nserving {}", listener.local_addr().expect("an address"));
        let app = axum::Router::new().layer(endpoint.layer("/socket"));
        axum::serve(listener, app).await.expect("to serve");
    });
}

#[tokio::test]
#[ignore = "opens 10,000 sockets"]
async fn clients_that_do_not_read_leave_the_server_alive_and_others_served() {
    rlimit::increase_nofile_limit(3 * CLIENTS as u64).expect("a limit of open files");
    let (mut server, address) = start();
    let mut innocent = Client::connect(address, None).await.expect("accepted");
    let (mut closed, mut refused, mut slowest) = (0, 0, Duration::ZERO);
    let mut clients = Vec::new();
    for _ in 0..CLIENTS / 100 {
        let mut flooding = JoinSet::new();
        for _ in 0..100 {
            flooding.spawn(async move {
                let mut client = Client::connect(address, Some(4096)).await?;
                let is_open = client.flood().await;
                Some((client, is_open))
            });
        }
        for flooded in flooding.join_all().await {
            match flooded {
                Some((client, is_open)) => {
                    closed += usize::from(!is_open);
                    clients.push(client);
                }
                None => refused += 1,
            }
        }
        slowest = slowest.max(innocent.echo().await);
    }
    for _ in 0..20 {
        slowest = slowest.max(innocent.echo().await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!(
        "{} connected, {refused} refused, {closed} closed meanwhile; {} KiB; slowest echo {slowest:?}",
        clients.len(),
        peak_memory(&server.0),
    );
    assert_eq!(server.0.try_wait().expect("a child"), None, "the server is alive");
    assert!(refused + closed > 0, "the budget was never reached");
}

/// Ends the process when it is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

fn start() -> (Server, SocketAddr) {
    let limited =
        format!("ulimit -v {SYSTEM_LIMIT} && exec \"$0\" --exact serve --ignored --nocapture");
    let mut server = Command::new("sh")
        .args(["-c", &limited])
        .arg(std::env::current_exe().expect("this program"))
        // An arena reserves 64 MiB of address space.
        .env("MALLOC_ARENA_MAX", "1")
        .env(SERVES, "")
        .stdout(Stdio::piped())
        .spawn()
        .expect("to start the server");
    let mut lines = BufReader::new(server.stdout.take().expect("its output")).lines();
    let address = lines
        .by_ref()
        .map_while(std::result::Result::ok)
        .find_map(|line| line.strip_prefix("serving ").and_then(|address| address.parse().ok()));
    std::thread::spawn(move || lines.for_each(drop));
    (Server(server), address.expect("the server tells its address"))
}

/// The most memory that the process has held, in KiB, where the system tells.
fn peak_memory(process: &Child) -> String {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id()));
    let status = status.unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.unwrap_or("unknown").trim().trim_end_matches(" kB").to_owned()
}

/// A WebSocket client of `echo`, as short as it can be.
struct Client {
    stream: TcpStream,
    sent: usize,
}

impl Client {
    async fn connect(address: SocketAddr, receive_buffer: Option<u32>) -> Option<Self> {
        let socket = TcpSocket::new_v4().expect("a socket");
        if let Some(size) = receive_buffer {
            socket.set_recv_buffer_size(size).expect("a small buffer");
        }
        let mut stream = socket.connect(address).await.ok()?;
        let request = "GET /socket/websocket?vsn=2.0.0 HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\n\
                       upgrade: websocket\r\nsec-websocket-version: 13\r\n\
                       sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.ok()?);
        }
        let is_accepted = head.starts_with(b"HTTP/1.1 101");
        let mut client = is_accepted.then_some(Self { stream, sent: 0 })?;
        client.send("phx_join", 100).await;
        let joined = client.receive().await?;
        assert!(joined.contains("ok"), "{joined}");
        Some(client)
    }

    /// Sends without reading the replies. Returns whether the connection took everything in time.
    async fn flood(&mut self) -> bool {
        let (count, size) = UNREAD;
        let sent = tokio::time::timeout(Duration::from_millis(100), async {
            for _ in 0..count {
                if !self.send("push", size).await {
                    return false;
                }
            }
            true
        });
        // A server that does not read from a client which does not read is as it should be.
        sent.await.unwrap_or(true)
    }

    /// Sends a push and waits for its reply.
    async fn echo(&mut self) -> Duration {
        let start = Instant::now();
        assert!(self.send("push", 100).await, "the innocent client is served");
        let reply = tokio::time::timeout(Duration::from_secs(30), self.receive()).await;
        let reply = reply.expect("a reply in time").expect("a connection");
        assert!(reply.contains("phx_reply"), "{reply}");
        start.elapsed()
    }

    /// Sends a message of at least 126 bytes, whose frame has a head of 8 bytes.
    async fn send(&mut self, event: &str, size: usize) -> bool {
        self.sent += 1;
        let payload = json!({ "text": "x".repeat(size) });
        let message = json!(["1", self.sent.to_string(), "echo", event, payload]).to_string();
        assert!(message.len() >= 126, "{message}");
        let length = u16::try_from(message.len()).expect("a short message").to_be_bytes();
        // Masked with zeros.
        let mut frame = vec![0x81, 0x80 | 126, length[0], length[1], 0, 0, 0, 0];
        frame.extend_from_slice(message.as_bytes());
        self.stream.write_all(&frame).await.is_ok()
    }

    async fn receive(&mut self) -> Option<String> {
        let [kind, length] = [self.stream.read_u8().await.ok()?, self.stream.read_u8().await.ok()?];
        let length =
            if length < 126 { length.into() } else { self.stream.read_u16().await.ok()? };
        let mut payload = vec![0; length.into()];
        self.stream.read_exact(&mut payload).await.ok()?;
        (kind == 0x81).then(|| String::from_utf8(payload).expect("UTF-8"))
    }
}
