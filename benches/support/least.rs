//! The least that a server can do: it answers with constants, and looks at no more than how much there
//! is to read. What was read together is answered in one write to each.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::crowd::Talk;
use super::server::Server;

pub(crate) struct Least {
    pub(crate) address: SocketAddr,
    room: Arc<Room>,
}

#[derive(Default)]
struct Room {
    talk: Mutex<Option<Arc<Talk>>>,
    clients: Mutex<Vec<Arc<TcpStream>>>,
}

impl Least {
    /// One room with a port of its own.
    pub(crate) fn new(server: &Server) -> Self {
        let room = Arc::<Room>::default();
        let served = Arc::clone(&room);
        let address = server.accept(move |io| serve(io, Arc::clone(&served)));
        Self { address, room }
    }

    /// What is said from now on, and answered.
    pub(crate) fn answer(&self, talk: &Arc<Talk>) {
        *self.room.talk.lock().expect("no panic") = Some(Arc::clone(talk));
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
        let talk = room.talk.lock().expect("no panic").clone();
        let Some(talk) = talk else { break };
        let Talk { question, answer, everyone } = &*talk;
        assert_eq!(size % question.len(), 0, "a piece of a message");
        if *everyone {
            let answers = answer.repeat(size / question.len());
            room.clients
                .lock()
                .expect("no panic")
                .iter()
                .for_each(|client| write(client, &answers));
        } else {
            write(&io, answer);
        }
    }
}

/// So little is under way that there is room for it.
fn write(client: &TcpStream, message: &[u8]) {
    assert_eq!(client.try_write(message).ok(), Some(message.len()));
}
