//! A TCP proxy that misbehaves on command, as the networks of hotels, trains and offices do. It
//! forwards connections on `ADDR` (default `127.0.0.1:0`) to `UPSTREAM`. All random choices derive
//! from `SEED`, so that a failure can be reproduced.
//!
//! It prints `seed N`, `control on ADDR` and `listening on ADDR`. The control endpoint is plain
//! HTTP:
//!
//! | request | effect |
//! | --- | --- |
//! | `POST /kill` | closes all connections |
//! | `POST /reset` | the same with a TCP reset |
//! | `POST /kill_every?ms=N&jitter=J&times=T` | kills every N ± J ms, T times (without `times`: until `ms=0`) |
//! | `POST /refuse?on=1` | resets new connections at once |
//! | `POST /refuse_upgrades?on=1` | answers WebSocket upgrades with 403 |
//! | `POST /truncate?count=N&one_in=M` | cuts N HTTP responses mid-body and their connections; one in M, if M is given |
//! | `POST /delay?ms=N` | delays everything by N ms |
//! | `POST /rate?bytes_per_s=N` | limits each direction of each connection; 0 removes the limit |
//! | `POST /swallow?direction=up&on=1` | drops everything sent in that direction; an affected connection never recovers |
//! | `GET /stats` | returns counters as JSON |

use std::collections::HashMap;
use std::env;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

/// `CHUNK` times `CHUNKS` bounds the bytes buffered per direction, so that the server feels a slow
/// link.
const CHUNK: usize = 4096;
const CHUNKS: usize = 8;
/// Rate limiting works in pieces of this size.
const PACKET: usize = 1400;
const MAX_HEAD: usize = 64 * 1024;
const REFUSAL: &[u8] = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let upstream = env::var("UPSTREAM").map_err(|_| io::Error::other("UPSTREAM is not set"))?;
    let address = env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:0".to_owned());
    let seed = env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(from_clock);
    let listener = TcpListener::bind(address).await?;
    let control = TcpListener::bind("127.0.0.1:0").await?;
    println!("seed {seed}");
    println!("control on {}", control.local_addr()?);
    println!("listening on {}", listener.local_addr()?);

    let proxy = Arc::new(Proxy::new(upstream, seed));
    tokio::spawn(serve_control(control, proxy.clone()));
    loop {
        let (client, _) = listener.accept().await?;
        let proxy = proxy.clone();
        tokio::spawn(async move { drop(proxy.relay(client).await) });
    }
}

fn from_clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_micros() as u64)
}

struct Proxy {
    upstream: String,
    /// Written by the control endpoint, read by every connection; never held across an await.
    state: Mutex<State>,
    /// Notifies all connections to end, and how.
    ends: watch::Sender<End>,
    /// Counts `/kill_every` requests; a new one cancels the previous one.
    killers: watch::Sender<u64>,
}

#[derive(Clone, Copy)]
enum End {
    Kill,
    Reset,
}

struct State {
    faults: Faults,
    stats: Stats,
    dice: Dice,
}

#[derive(Clone, Copy, Default)]
struct Faults {
    refuse: bool,
    refuse_upgrades: bool,
    truncate: u64,
    truncate_one_in: u64,
    delay: Duration,
    bytes_per_s: u64,
    swallow_up: bool,
    swallow_down: bool,
}

#[derive(Default)]
struct Stats {
    open: u64,
    connections: u64,
    upgrades: u64,
    refused: u64,
    kills: u64,
    cut: u64,
    truncated: u64,
    swallowed: u64,
    up: u64,
    down: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Up,
    Down,
}

impl Proxy {
    fn new(upstream: String, seed: u64) -> Self {
        let state = State { faults: Faults::default(), stats: Stats::default(), dice: Dice(seed) };
        let (ends, _) = watch::channel(End::Kill);
        let (killers, _) = watch::channel(0);
        Self { upstream, state: Mutex::new(state), ends, killers }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("lock is never poisoned")
    }

    fn faults(&self) -> Faults {
        self.state().faults
    }

    /// Relays one connection from its first request to its end.
    async fn relay(&self, mut client: TcpStream) -> io::Result<()> {
        let mut ended = self.ends.subscribe();
        if self.faults().refuse {
            self.state().stats.refused += 1;
            return client.set_zero_linger();
        }
        let head = tokio::select! {
            head = read_head(&mut client) => head?,
            _ = ended.changed() => return Ok(()),
        };
        let upgrade = is_upgrade(&head);
        if upgrade && self.faults().refuse_upgrades {
            self.state().stats.refused += 1;
            client.write_all(REFUSAL).await?;
            return client.shutdown().await;
        }
        let mut server = self.connect().await?;
        {
            let stats = &mut self.state().stats;
            stats.open += 1;
            stats.connections += 1;
            stats.upgrades += u64::from(upgrade);
        }
        let relayed = tokio::select! {
            relayed = self.both_ways(&mut client, &mut server, head, upgrade) => relayed,
            _ = ended.changed() => {
                self.state().stats.cut += 1;
                match *ended.borrow() {
                    End::Kill => Ok(()),
                    End::Reset => client.set_zero_linger().and(server.set_zero_linger()),
                }
            }
        };
        self.state().stats.open -= 1;
        relayed
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let address = tokio::net::lookup_host(&self.upstream).await?.next();
        let address = address.ok_or_else(|| io::Error::other("UPSTREAM does not resolve"))?;
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_recv_buffer_size((CHUNK * CHUNKS) as u32)?;
        let server = socket.connect(address).await?;
        server.set_nodelay(true)?;
        Ok(server)
    }

    async fn both_ways(
        &self,
        client: &mut TcpStream,
        server: &mut TcpStream,
        head: Vec<u8>,
        upgrade: bool,
    ) -> io::Result<()> {
        client.set_nodelay(true)?;
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let up = self.pump(Direction::Up, from_client, to_server, head, false);
        let down = self.pump(Direction::Down, from_server, to_client, Vec::new(), !upgrade);
        tokio::try_join!(up, down).map(drop)
    }

    /// Relays one direction, starting with `first`, which was read before. `http` enables
    /// truncation of responses.
    async fn pump(
        &self,
        direction: Direction,
        mut from: ReadHalf<'_>,
        mut to: WriteHalf<'_>,
        first: Vec<u8>,
        http: bool,
    ) -> io::Result<()> {
        let (tx, mut rx) = mpsc::channel(CHUNKS);
        let read = async move {
            let mut chunk = first;
            let mut buffer = [0; CHUNK];
            loop {
                if !chunk.is_empty() && tx.send((Instant::now(), chunk)).await.is_err() {
                    return Ok(());
                }
                chunk = match from.read(&mut buffer).await? {
                    0 => return Ok(()),
                    length => buffer[..length].to_vec(),
                };
            }
        };
        let write = async move {
            let mut lost = false;
            while let Some((arrived, chunk)) = rx.recv().await {
                pause(self.faults().delay.saturating_sub(arrived.elapsed())).await;
                lost |= self.swallows(direction);
                if lost {
                    self.state().stats.swallowed += chunk.len() as u64;
                    continue;
                }
                let cut = if http { self.cut_of(&chunk) } else { None };
                self.write(direction, &mut to, &chunk[..cut.unwrap_or(chunk.len())]).await?;
                if cut.is_some() {
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
            }
            to.shutdown().await
        };
        tokio::try_join!(read, write).map(drop)
    }

    fn swallows(&self, direction: Direction) -> bool {
        let faults = self.faults();
        match direction {
            Direction::Up => faults.swallow_up,
            Direction::Down => faults.swallow_down,
        }
    }

    /// Returns where to truncate a response that starts with this chunk, if at all.
    fn cut_of(&self, chunk: &[u8]) -> Option<usize> {
        let body = chunk.starts_with(b"HTTP/1.").then(|| end_of_head(chunk))??;
        let State { faults, stats, dice } = &mut *self.state();
        if body == chunk.len() || faults.truncate == 0 || dice.below(faults.truncate_one_in) > 0 {
            return None;
        }
        faults.truncate -= 1;
        stats.truncated += 1;
        Some(body + dice.below((chunk.len() - body) as u64) as usize)
    }

    async fn write(&self, way: Direction, to: &mut WriteHalf<'_>, chunk: &[u8]) -> io::Result<()> {
        for packet in chunk.chunks(PACKET) {
            to.write_all(packet).await?;
            pause(self.transfer_time(way, packet.len() as u64)).await;
        }
        Ok(())
    }

    /// Counts transferred bytes, and returns how long a rate-limited link takes for them.
    fn transfer_time(&self, way: Direction, length: u64) -> Duration {
        let State { faults, stats, .. } = &mut *self.state();
        *if way == Direction::Up { &mut stats.up } else { &mut stats.down } += length;
        let micros = (length * 1_000_000).checked_div(faults.bytes_per_s);
        Duration::from_micros(micros.unwrap_or(0))
    }

    fn end(&self, end: End) {
        self.state().stats.kills += 1;
        self.ends.send_replace(end);
    }

    async fn kill_every(self: Arc<Self>, ms: u64, jitter: u64, times: Option<u64>) {
        let mut newer = self.killers.subscribe();
        let mut left = times.unwrap_or(u64::MAX);
        while left > 0 {
            let pause = (ms + self.state().dice.below(2 * jitter + 1)).saturating_sub(jitter);
            tokio::select! {
                () = sleep(Duration::from_millis(pause)) => self.end(End::Kill),
                _ = newer.changed() => return,
            };
            left -= 1;
        }
    }
}

/// Serves the control endpoint, one request per connection.
async fn serve_control(listener: TcpListener, proxy: Arc<Proxy>) -> io::Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        let proxy = proxy.clone();
        tokio::spawn(async move {
            let head = read_head(&mut stream).await?;
            let (status, body) = match execute(&proxy, &String::from_utf8_lossy(&head)) {
                Some(body) => ("200 OK", body),
                None => ("404 Not Found", "no such command\n".to_owned()),
            };
            let length = body.len();
            let response = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
            stream.write_all(response.as_bytes()).await?;
            stream.shutdown().await
        });
    }
}

fn execute(proxy: &Arc<Proxy>, head: &str) -> Option<String> {
    let mut line = head.split_ascii_whitespace();
    let (method, target) = (line.next()?, line.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let parameters: HashMap<_, _> = query.split('&').filter_map(|p| p.split_once('=')).collect();
    let number = |name: &str| parameters.get(name).and_then(|text| text.parse::<u64>().ok());
    let on = number("on").unwrap_or(1) > 0;
    match (method, path) {
        ("GET", "/stats") => return Some(proxy.state().stats.to_json()),
        ("POST", "/kill") => proxy.end(End::Kill),
        ("POST", "/reset") => proxy.end(End::Reset),
        ("POST", "/kill_every") => {
            proxy.killers.send_modify(|count| *count += 1);
            let ms = number("ms")?;
            if ms > 0 {
                let killer = proxy.clone();
                let jitter = number("jitter").unwrap_or(0);
                tokio::spawn(killer.kill_every(ms, jitter, number("times")));
            }
        }
        ("POST", "/refuse") => proxy.state().faults.refuse = on,
        ("POST", "/refuse_upgrades") => proxy.state().faults.refuse_upgrades = on,
        ("POST", "/truncate") => {
            let faults = &mut proxy.state().faults;
            faults.truncate = number("count").unwrap_or(u64::MAX);
            faults.truncate_one_in = number("one_in").unwrap_or(1);
        }
        ("POST", "/delay") => proxy.state().faults.delay = Duration::from_millis(number("ms")?),
        ("POST", "/rate") => proxy.state().faults.bytes_per_s = number("bytes_per_s")?,
        ("POST", "/swallow") => match *parameters.get("direction")? {
            "up" => proxy.state().faults.swallow_up = on,
            "down" => proxy.state().faults.swallow_down = on,
            _ => return None,
        },
        _ => return None,
    }
    Some(String::new())
}

impl Stats {
    fn to_json(&self) -> String {
        let Self { open, connections, upgrades, refused, kills, .. } = self;
        let Self { cut, truncated, swallowed, up, down, .. } = self;
        format!(
            "{{\"open\":{open},\"connections\":{connections},\"upgrades\":{upgrades},\
             \"refused\":{refused},\"kills\":{kills},\"cut\":{cut},\
             \"truncated\":{truncated},\"swallowed\":{swallowed},\"up\":{up},\"down\":{down}}}"
        )
    }
}

async fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while end_of_head(&head).is_none() && head.len() < MAX_HEAD {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head)
}

/// Sleeps unless the duration is zero, since even the shortest sleep takes a millisecond.
async fn pause(duration: Duration) {
    if !duration.is_zero() {
        sleep(duration).await;
    }
}

/// Returns where the body begins, if the head is complete.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|start| start + 4)
}

fn is_upgrade(head: &[u8]) -> bool {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    head.lines().any(|line| {
        line.strip_prefix("upgrade:").is_some_and(|protocol| protocol.trim() == "websocket")
    })
}

/// A SplitMix64 random number generator.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides.max(1)
    }
}
