//! Many tasks push into one WebSocket over tiny pipes: no message is lost or torn, and no wake-up is
//! missed.

use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, duplex, split};
use tower_channels_transports::internals::Connection;
use tower_channels_transports::{
    Close, Inbound, Limits, Message, Session, WebSocketConfig, outbox,
};

struct Echo(outbox::Sender);

impl Session for Echo {
    fn handle_in(&mut self, message: Inbound<'_>) -> Result<(), Close> {
        if let Inbound::Binary(bytes) = message {
            self.0.push(Message::binary(bytes.to_vec()));
        }
        Ok(())
    }
}

const TASKS: u8 = 8;
const MESSAGES: u32 = 200;
/// The number that marks the client's own messages, which are echoed.
const CLIENT: u8 = TASKS;

/// A message of a task: the task, the number, and filler whose length depends on the number.
fn message(task: u8, number: u32) -> Vec<u8> {
    let mut bytes = vec![task];
    bytes.extend(number.to_be_bytes());
    bytes.resize(5 + (number as usize * 7) % 300, task);
    bytes
}

/// A client's frame whose mask is zero, so that the payload stays readable.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        len @ 0..126 => frame.push(0x80 | len as u8),
        len => {
            frame.push(0x80 | 126);
            frame.extend((len as u16).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend_from_slice(payload);
    frame
}

async fn read_frame(reader: &mut ReadHalf<DuplexStream>) -> (u8, Vec<u8>) {
    let first = reader.read_u8().await.expect("a frame");
    let size = match reader.read_u8().await.expect("a length") {
        126 => usize::from(reader.read_u16().await.expect("a length")),
        len => usize::from(len),
    };
    let mut payload = vec![0; size];
    reader.read_exact(&mut payload).await.expect("a payload");
    (first & 0x0f, payload)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn messages_of_many_tasks_arrive_whole_and_in_order() {
    let limits = Limits::default();
    for pipe in [7, 100, 5000] {
        let (client, server) = duplex(pipe);
        let (outbox, receiver) = outbox::channel(limits.outbox_limit());
        let config = WebSocketConfig::new();
        let session = Echo(outbox.clone());
        let connection = tokio::spawn(Connection::new(
            TokioIo::new(server),
            session,
            receiver,
            &config,
            &limits,
        ));
        let (mut reader, mut writer) = split(client);
        for task in 0..TASKS {
            let outbox = outbox.clone();
            tokio::spawn(async move {
                for number in 0..MESSAGES {
                    outbox.push(Message::binary(message(task, number)));
                    if number % 3 == 0 {
                        tokio::time::sleep(Duration::from_micros(u64::from(task) * 20)).await;
                    }
                }
            });
        }
        tokio::spawn(async move {
            for number in 0..MESSAGES {
                writer.write_all(&frame(2, &message(CLIENT, number))).await.expect("open");
                writer.write_all(&frame(9, &number.to_be_bytes())).await.expect("open");
            }
            // Dropping the writer would close the pipe.
            writer
        });
        let receive = async {
            let mut next = [0; CLIENT as usize + 1];
            let mut pongs = 0;
            while next.iter().sum::<u32>() < MESSAGES * (u32::from(CLIENT) + 1) || pongs < MESSAGES
            {
                let (opcode, payload) = read_frame(&mut reader).await;
                if opcode == 10 {
                    assert_eq!(payload, pongs.to_be_bytes());
                    pongs += 1;
                } else {
                    let task = payload[0];
                    assert_eq!(payload, message(task, next[usize::from(task)]), "pipe of {pipe}");
                    next[usize::from(task)] += 1;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), receive).await.expect("everything arrives");
        outbox.close(Close::GoingAway);
        assert_eq!(read_frame(&mut reader).await, (8, 1001_u16.to_be_bytes().to_vec()));
        connection.abort();
    }
}

#[test]
fn a_task_that_pushes_and_then_blocks_its_thread_delays_at_most_one_connection() {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let limits = Limits::default();
        let (mut outboxes, mut clients) = (Vec::new(), Vec::new());
        for _ in 0..8 {
            let (client, server) = duplex(100);
            let (outbox, receiver) = outbox::channel(limits.outbox_limit());
            let session = Echo(outbox.clone());
            let config = WebSocketConfig::new();
            tokio::spawn(Connection::new(
                TokioIo::new(server),
                session,
                receiver,
                &config,
                &limits,
            ));
            let (mut reader, writer) = split(client);
            outbox.push(Message::binary("connected"));
            read_frame(&mut reader).await;
            outboxes.push(outbox);
            clients.push((reader, writer));
        }
        let (release, blocked) = std::sync::mpsc::channel::<()>();
        let pushing = tokio::spawn(async move {
            outboxes.iter().for_each(|outbox| outbox.push(Message::binary("a")));
            let _ = blocked.recv();
            outboxes
        });
        // No other worker steals the task that was woken last.
        let mut delayed = 0;
        for (reader, _) in &mut clients {
            let received = tokio::time::timeout(Duration::from_secs(2), read_frame(reader));
            delayed += usize::from(received.await.is_err());
        }
        drop(release);
        assert!(delayed <= 1, "{delayed} connections are delayed");
        pushing.await.expect("no panic");
    });
}
