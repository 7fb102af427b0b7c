//! How a node keeps the records of its sessions.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tower_channels_transports::limited;

use super::record::key;
use super::records::{Answer, Call, Next, TTL, Task};
use super::{MAX_CALLS, PATIENCE};
use crate::adapter::Replaced;
use crate::cluster::{Cluster, WeakCluster};
use crate::telemetry::SESSIONS_SUPERSEDED;

/// A pause of the process after which other nodes may have taken its sessions for lost, in milliseconds.
const PAUSE: u64 = 1000;

/// How long a session takes to begin that was found.
const BEGINNING: Duration = Duration::from_secs(5);

/// How many sessions are checked per step of the node's task.
const CHECKS: usize = 64;

impl Cluster {
    /// The session of this id, which this node had, has ended here: its record is removed soon.
    pub(in crate::cluster) fn release(&self, endpoint: u32, id: &str) {
        let now = self.elapsed();
        let mut state = self.claims.state.lock();
        if let Some(records) = state.endpoints.get_mut(endpoint as usize) {
            records.release(id, now);
        }
    }

    /// Ends a session that another node has.
    pub(super) fn end_moved(self: &Arc<Self>, endpoint: u32, id: Arc<str>) {
        SESSIONS_SUPERSEDED.add(1);
        let end = move |cluster: &Self, id: &str| {
            if let Some(endpoint) = cluster.endpoint(endpoint) {
                endpoint.end_moved(id);
            }
        };
        end(self, &id);
        // One that was found in this moment begins after that.
        let cluster = Arc::downgrade(self);
        self.runtime.spawn(async move {
            sleep(BEGINNING).await;
            let Some(cluster) = cluster.upgrade() else { return };
            let has_it = cluster.claims.state.lock().of(endpoint).has(&id);
            if !has_it {
                end(&cluster, &id);
            }
        });
    }

    /// Other nodes may have taken sessions for theirs that this one believes to have.
    pub(in crate::cluster) fn check_records(&self) {
        let mut state = self.claims.state.lock();
        state.endpoints.iter_mut().for_each(|records| records.check_all());
    }

    /// Does what is due by the clock. To be called every 50 ms.
    pub(in crate::cluster) fn step_claims(self: &Arc<Self>) {
        let now = self.elapsed();
        let mut state = self.claims.state.lock();
        let pause = now.saturating_sub(std::mem::replace(&mut state.last_step, now));
        drop(state);
        if pause >= PAUSE {
            self.check_records();
        }
        self.begin_tasks(CHECKS);
        self.step_followed(now);
        self.repeat_took(now);
    }

    /// Begins what is due for records.
    pub(super) fn keep_records(self: &Arc<Self>) {
        self.begin_tasks(0);
    }

    /// Begins as many tasks as there is room for, among them so many checks.
    fn begin_tasks(self: &Arc<Self>, checks: usize) {
        let now = self.elapsed();
        let mut begun = Vec::new();
        let mut state = self.claims.state.lock();
        for index in 0..state.endpoints.len() {
            let mut room = MAX_CALLS.saturating_sub(state.tasks);
            let before = begun.len();
            let records = &mut state.endpoints[index];
            while let Some(task) = (room > 0).then(|| records.next(now)).flatten() {
                begun.push((index as u32, task));
                room -= 1;
            }
            room = room.min(checks);
            while let Some(task) = (room > 0).then(|| records.next_check()).flatten() {
                begun.push((index as u32, task));
                room -= 1;
            }
            state.tasks += begun.len() - before;
        }
        drop(state);
        for (endpoint, task) in begun {
            self.runtime.spawn(run(Arc::downgrade(self), endpoint, task));
        }
    }

    /// Does a task, and what follows from it.
    async fn run_task(self: &Arc<Self>, endpoint: u32, mut task: Task) {
        loop {
            let id = Arc::clone(&task.id);
            let answer = self.call(&key(endpoint, &id), &task.call).await;
            let now = self.elapsed();
            let next = self.claims.state.lock().of(endpoint).done(task, answer, now);
            match next {
                Next::Again(next) => task = next,
                Next::Nothing => return,
                Next::Tell { loser, generation } => {
                    return self.tell_took(loser, endpoint, &id, generation);
                }
                Next::End => {
                    limited!(INFO, session = ?id, "session ended: another node has it by now");
                    return self.end_moved(endpoint, id);
                }
            }
        }
    }

    async fn call(&self, key: &str, call: &Call) -> Answer {
        let (seen, value) = match call {
            Call::Read => {
                return self.read_record(key).await.map_or(Answer::Failed, Answer::There);
            }
            Call::Write { seen, record } => (*seen, Some(record.encode())),
            Call::Remove { seen } => (Some(*seen), None),
        };
        let deadline = Instant::now() + PATIENCE;
        match self.replace_record(key, seen, value, TTL, deadline).await {
            Ok(Replaced::Yes(revision)) => Answer::Replaced(revision),
            Ok(Replaced::No(there)) => Answer::There(there),
            Err(_) => Answer::Failed,
        }
    }
}

/// Does a task, and then whatever else is due.
async fn run(cluster: WeakCluster, endpoint: u32, task: Task) {
    let Some(cluster) = cluster.upgrade() else { return };
    cluster.run_task(endpoint, task).await;
    cluster.claims.state.lock().tasks -= 1;
    cluster.keep_records();
}
