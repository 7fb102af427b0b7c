//! A server over loopback on separate threads, and its CPU time.

use std::convert::Infallible;
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::DuplexStream;
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tower::Service;
use tower_channels::{Endpoint, WebSocketConfig};

use super::room::Room;
use super::{Thread, local, median};

/// How many connections may wait to be accepted. What is beyond it tries again after 1, 3 and 7 s.
const BACKLOG: u32 = 4096;

/// A server that shuts down with its connections when it is dropped.
pub(crate) struct Server {
    handle: Handle,
    threads: Arc<Mutex<Vec<Thread>>>,
    host: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Server {
    /// Starts the server. One worker means a current-thread runtime.
    pub(crate) fn new(workers: usize) -> Self {
        let threads = Arc::<Mutex<Vec<Thread>>>::default();
        let started = {
            let threads = Arc::clone(&threads);
            move || threads.lock().expect("no panic").push(Thread::current())
        };
        let mut runtime = match workers {
            1 => Builder::new_current_thread(),
            _ => Builder::new_multi_thread(),
        };
        runtime.worker_threads(workers).enable_all().on_thread_start(started.clone());
        let runtime = runtime.build().expect("a runtime");
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        let host = thread::spawn(move || {
            started();
            let _ = runtime.block_on(ended);
        });
        Self { handle, threads, host: Some((end, host)) }
    }

    /// Runs a future on the threads of the server, and returns its result.
    pub(crate) fn run<F>(&self, future: F) -> F::Output
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let (done, result) = std::sync::mpsc::channel();
        self.handle.spawn(async move { done.send(future.await) });
        result.recv().expect("no panic")
    }

    /// Listens on a new port and serves each connection with `serve`.
    pub(crate) fn accept<F>(&self, serve: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = self.run(async {
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a port");
            socket.listen(BACKLOG).expect("a listener")
        });
        let address = listener.local_addr().expect("an address");
        self.handle.spawn(async move {
            while let Ok((io, _)) = listener.accept().await {
                io.set_nodelay(true).expect("a socket option");
                tokio::spawn(serve(io));
            }
        });
        address
    }

    /// Serves rooms at `/socket`.
    pub(crate) fn rooms(&self) -> SocketAddr {
        // Most clients only listen.
        let config = WebSocketConfig::new().idle_timeout(Duration::from_secs(3600));
        let endpoint = Endpoint::builder(|_| async { Ok(()) }).channel::<Room>("room:*");
        self.http(endpoint.websocket(config).build().service())
    }

    /// Serves HTTP with upgrades.
    pub(crate) fn http<S, B>(&self, service: S) -> SocketAddr
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
        S: Clone + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        let service = TowerToHyperService::new(service);
        self.accept(move |io| {
            let http = http1::Builder::new().serve_connection(TokioIo::new(io), service.clone());
            async { drop(http.with_upgrades().await) }
        })
    }

    /// Serves HTTP with upgrades over pipes in memory, each of which the result opens.
    pub(crate) fn pipes<S, B>(&self, service: S) -> impl Fn() -> DuplexStream + use<S, B>
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
        S: Clone + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        let (handle, service) = (self.handle.clone(), TowerToHyperService::new(service));
        move || {
            let _inside = handle.enter();
            local::connect(service.clone())
        }
    }

    /// Repeats `work`, which returns its number of operations, until the server has used enough CPU
    /// time.
    pub(crate) fn turn(&self, costs: &mut Costs, mut work: impl FnMut() -> usize) {
        let began = Instant::now();
        let (cpu, [user, system]) = (self.seconds(Thread::cpu), self.ticks());
        let (mut operations, mut used) = (0, 0.0);
        while used < TURN && began.elapsed() < Duration::from_secs(1) {
            operations += work();
            used = self.seconds(Thread::cpu) - cpu;
        }
        costs.turns.push(used * 1e6 / operations as f64);
        let now = self.ticks();
        costs.ticks[0] += now[0] - user;
        costs.ticks[1] += now[1] - system;
    }

    /// Returns the sum of a time over all threads, in seconds.
    pub(crate) fn seconds(&self, spent: impl Fn(&Thread) -> Duration) -> f64 {
        let threads = self.threads.lock().expect("no panic");
        threads.iter().map(|thread| spent(thread).as_secs_f64()).sum()
    }

    /// Returns the clock ticks of all threads in user space and in the kernel.
    fn ticks(&self) -> [f64; 2] {
        let threads = self.threads.lock().expect("no panic");
        threads.iter().map(Thread::ticks).fold([0.0; 2], |[user, system], [more, kernel]| {
            [user + more as f64, system + kernel as f64]
        })
    }
}

/// The CPU time that the server uses per turn, in seconds.
const TURN: f64 = 0.1;

impl Drop for Server {
    fn drop(&mut self) {
        if let Some((end, host)) = self.host.take() {
            drop(end);
            let _ = host.join();
        }
    }
}

/// The cost of an operation in each turn.
#[derive(Default)]
pub(crate) struct Costs {
    turns: Vec<f64>,
    ticks: [f64; 2],
}

impl Costs {
    /// Returns the median cost in microseconds.
    pub(crate) fn us(&self) -> f64 {
        median(self.turns.clone())
    }

    /// Returns the share of it in user space, a coarse measure.
    pub(crate) fn user_us(&self) -> f64 {
        let [user, system] = self.ticks;
        self.us() * user / (user + system).max(1.0)
    }

    /// Returns the median of the per-turn ratios to another cost.
    pub(crate) fn ratio(&self, other: &Self) -> f64 {
        median(self.turns.iter().zip(&other.turns).map(|(one, other)| one / other).collect())
    }
}
