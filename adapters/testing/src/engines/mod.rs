//! Engines as processes on loopback, each in a folder of its own, that end with the test.
//!
//! Their programs are named by the environment variables `REDIS_SERVER`, `VALKEY_SERVER` and `NATS_SERVER`. Where one is
//! not set, the functions that start an engine return `None` and write a line that says so; where `CI` is set, they panic.

mod nats;
mod process;
mod redis;
mod resp;

use std::env;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

pub use self::nats::{NatsConfig, NatsServer};
pub use self::redis::{Kind, RedisConfig, RedisServer, Sentinel};

/// How long an engine has to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The program that this variable names, if any.
fn program(variable: &str) -> Option<PathBuf> {
    let program = env::var_os(variable).filter(|path| !path.is_empty());
    if program.is_none() {
        assert!(env::var_os("CI").is_none(), "{variable} is not set");
        let thread = std::thread::current();
        let test = thread.name().unwrap_or_default();
        // The test harness would not show what `eprintln!` writes.
        let _ = writeln!(std::io::stderr(), "-- skipped: {test}: {variable} is not set");
    }
    program.map(PathBuf::from)
}

/// A port on loopback that nothing listens on. Below those that the system gives to clients: a client that
/// connects to such a port while nothing listens may be connected to itself.
fn free_port() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 20_000;
    let offset = (std::process::id() % u32::from(COUNT)) as u16;
    loop {
        let number = TAKEN.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + ((u32::from(offset) * 61 + u32::from(number)) % u32::from(COUNT)) as u16;
        if TcpListener::bind(loopback(port)).is_ok() {
            return port;
        }
    }
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Waits until something is true.
async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(result) = condition().await {
            return result;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        sleep(Duration::from_millis(5)).await;
    }
}
