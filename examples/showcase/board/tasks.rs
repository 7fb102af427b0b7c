//! The tasks of a board, and what a change makes of them.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use tower_channels::channel::Result;

const MAX_TASKS: usize = 100;
const MAX_TEXT: usize = 200;
const REMEMBERED: usize = 1000;

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Column {
    Todo,
    Doing,
    Done,
}

/// A task as the devices see it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Task {
    /// Chosen by the device that has added it.
    pub id: String,
    /// Of a change: the version that it is based on, 0 for a new task.
    pub version: u64,
    pub text: String,
    pub column: Column,
}

/// A board.
#[derive(Default)]
pub struct Tasks {
    tasks: BTreeMap<String, Task>,
    /// The ids of the last changes, the newest at the end.
    changes: VecDeque<String>,
}

/// Why a change is not made.
#[derive(Debug)]
pub enum Refused {
    Conflict(Task),
    Invalid(&'static str),
}

impl Tasks {
    pub fn all(&self) -> Vec<Task> {
        self.tasks.values().cloned().collect()
    }

    /// Makes a change once. Returns the task as it is now.
    pub fn change(&mut self, change: String, mut task: Task) -> Result<Task, Refused> {
        let current = self.tasks.get(&task.id);
        if let Some(current) = current
            && self.changes.contains(&change)
        {
            return Ok(current.clone());
        }
        let is_valid = |text: &str, max| (1..=max).contains(&text.chars().count());
        if !is_valid(&task.text, MAX_TEXT) || !is_valid(&task.id, 64) || !is_valid(&change, 64) {
            return Err(Refused::Invalid("a task has 1-200 characters"));
        }
        if let Some(current) = current
            && current.version != task.version
        {
            return Err(Refused::Conflict(current.clone()));
        }
        if current.is_none() && self.tasks.len() == MAX_TASKS {
            return Err(Refused::Invalid("the board is full"));
        }
        task.version = current.map_or(0, |current| current.version) + 1;
        self.tasks.insert(task.id.clone(), task.clone());
        self.changes.push_back(change);
        self.changes.drain(..self.changes.len().saturating_sub(REMEMBERED));
        Ok(task)
    }
}
