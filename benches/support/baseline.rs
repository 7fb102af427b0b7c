//! A baseline server that returns canned responses without parsing: it only counts the bytes that
//! it reads. Requests read together are answered with one write per client.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::crowd::Exchange;
use super::server::Server;

pub(crate) struct Baseline {
    pub(crate) address: SocketAddr,
    room: Arc<Room>,
}

#[derive(Default)]
struct Room {
    exchange: Mutex<Option<Arc<Exchange>>>,
    clients: Mutex<Vec<Arc<TcpStream>>>,
}

impl Baseline {
    /// Starts a room on a separate port.
    pub(crate) fn new(server: &Server) -> Self {
        let room = Arc::<Room>::default();
        let served = Arc::clone(&room);
        let address = server.accept(move |io| serve(io, Arc::clone(&served)));
        Self { address, room }
    }

    /// Sets the exchange to answer from now on.
    pub(crate) fn set_exchange(&self, exchange: &Arc<Exchange>) {
        *self.room.exchange.lock().expect("no panic") = Some(Arc::clone(exchange));
    }
}

async fn serve(mut io: TcpStream, room: Arc<Room>) {
    if io.write_all(b"!").await.is_err() {
        return;
    }
    let io = Arc::new(io);
    room.clients.lock().expect("no panic").push(Arc::clone(&io));
    let mut buffer = vec![0; 8192];
    while io.readable().await.is_ok() {
        let size = match io.try_read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Ok(0) | Err(_) => break,
            Ok(size) => size,
        };
        let exchange = room.exchange.lock().expect("no panic").clone();
        let Some(exchange) = exchange else { break };
        let Exchange { request, response, is_broadcast } = &*exchange;
        assert_eq!(size % request.len(), 0, "part of a message");
        if *is_broadcast {
            let responses = response.repeat(size / request.len());
            room.clients
                .lock()
                .expect("no panic")
                .iter()
                .for_each(|client| write(client, &responses));
        } else {
            write(&io, response);
        }
    }
}

/// Writes a message. So little is in flight that the socket buffer always has room.
fn write(client: &TcpStream, message: &[u8]) {
    assert_eq!(client.try_write(message).ok(), Some(message.len()));
}
