//! Synchronisation: a board of tasks, `board:ada`, the same on all devices of a person, which may be offline.
//!
//! A device changes a task at once, keeps the change, and sends it until it is acknowledged. The change has an id of its
//! own, so that it counts once however often it is sent; and the version of the task that it is based on, so that a task
//! which another device has changed meanwhile is a conflict. The device decides: its change again, based on the newer
//! version (the last writer), or as a second task (both are kept).
//!
//! The topic has a history: a device that returns, after a minute or a day, gets what it has missed, and no snapshot.

mod tasks;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;
use tower_channels::channel::{Error, Result};
use tower_channels::{Arrival, Channel, Joined, Payload, Reply, Socket};

use crate::device::Device;
use tasks::{Refused, Task, Tasks};

/// The boards of all people.
#[derive(Clone, Default)]
pub struct Boards(Arc<Mutex<HashMap<String, Tasks>>>);

impl Boards {
    fn with<T>(&self, user: &str, operation: impl FnOnce(&mut Tasks) -> T) -> T {
        operation(self.0.lock().entry(user.to_owned()).or_default())
    }
}

/// A device that shows the board of its user.
pub struct Board;

#[derive(Deserialize)]
struct Change {
    change: String,
    task: Task,
}

impl Channel for Board {
    type Assigns = Device;
    type Info = ();

    async fn join(topic: &str, _: Payload, socket: &Socket<Self>) -> Result<Joined<Self>> {
        if topic.strip_prefix("board:") != Some(&socket.assigns().user) {
            return Err(Error::reason("not yours"));
        }
        Ok(Joined::new(Self).reply(json!({ "recovered": is_recovered(socket) })))
    }

    async fn resume(&mut self, _: Payload, _: &Socket<Self>) -> Result<Option<Payload>> {
        Ok(Some(json!({ "resumed": true }).into()))
    }

    /// A device that has nothing, or has missed more than the history has, gets the board.
    async fn after_join(&mut self, socket: &Socket<Self>) -> Result<()> {
        let Device { user, state } = socket.assigns();
        if !is_recovered(socket) {
            let tasks = state.boards.with(user, |board| board.all());
            socket.push("tasks", json!({ "tasks": tasks }));
        }
        Ok(())
    }

    async fn handle_in(
        &mut self,
        event: &str,
        msg: Payload,
        socket: &Socket<Self>,
    ) -> Result<Reply> {
        if event != "change" {
            return Err(Error::unmatched(event));
        }
        let Change { change, task } = msg.parse()?;
        let Device { user, state } = socket.assigns();
        match state.boards.with(user, |board| board.change(change, task)) {
            // Also if the change was made before: its device may have stopped before it was published.
            Ok(task) => match socket.publish("task", json!(task)).await {
                Ok(_) => Ok(Reply::ok(json!(task))),
                Err(_) => Err(Error::reason("unavailable")),
            },
            Err(Refused::Conflict(task)) => {
                Err(Error::reply(json!({ "reason": "conflict", "task": task })))
            }
            Err(Refused::Invalid(why)) => Err(Error::reason(why)),
        }
    }
}

fn is_recovered(socket: &Socket<Board>) -> bool {
    matches!(socket.arrival(), Arrival::Recovered { has_gap: false })
}

#[cfg(test)]
mod tests;
