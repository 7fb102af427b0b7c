//! Connections that are woken together are written to together.
//!
//! A broadcast wakes a thousand connections in a row, and most of them for nothing but a write. So
//! the first that a thread wakes gets a turn of its task, and those that follow join its group: the
//! first one writes for them, without the turn of a task for each.
//!
//! The second gets a turn as well. What is woken last is where no other thread takes it before the one
//! that woke it is done with what it does, which may be long; then that is the second, and not the
//! leader with all the others behind it.
//!
//! A group is small, so that others have their turns in between and other threads take their share.
//!
//! A task that speaks to clients, such as a channel's, may say when its own [`turn`] is: the first
//! connection that is woken in it is written to at its end, without a turn of any other task.

use std::cell::Cell;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec;

/// A connection, as its group knows it.
pub(super) trait Member: Send + Sync {
    /// Writes what waits. Never waits itself, not even for a lock that another thread holds.
    fn flush(&self);

    /// Asks for a turn of the connection's task, which then [serves](Group::serve) `group`.
    fn lead(&self, group: &Arc<Group>);

    /// Asks for a turn of the connection's task.
    fn wake_task(&self);
}

/// Connections that wait for the turn of one more, their leader.
#[derive(Default)]
pub(super) struct Group(Mutex<State>);

#[derive(Default)]
struct State {
    /// Whether the leader's turn is still to come.
    open: bool,
    /// Whether there is a second.
    followed: bool,
    members: Vec<Arc<dyn Member>>,
}

thread_local! {
    /// The group of those whom this thread woke last. Only this thread adds to it.
    static NEWEST: Cell<Option<Arc<Group>>> = const { Cell::new(None) };

    static TURN: Cell<Turn> = const { Cell::new(Turn::None) };
}

/// What this thread does at the end of what it does now.
#[derive(Default)]
enum Turn {
    /// Nothing.
    #[default]
    None,
    /// It writes for the first who comes.
    Open,
    /// It writes for this one.
    Taken(Arc<dyn Member>),
}

/// Runs a task's turn, and writes before it returns what the first client was told in it.
///
/// It is only one, for a turn may be longer than it should be, and would hold up all the others. That
/// one gets nothing before the end, even if `work` lets other tasks run meanwhile, as
/// `tokio::task::block_in_place` does.
pub fn turn<R>(work: impl FnOnce() -> R) -> R {
    struct End(Turn);
    impl Drop for End {
        fn drop(&mut self) {
            if let Ok(Turn::Taken(member)) =
                TURN.try_with(|turn| turn.replace(mem::take(&mut self.0)))
            {
                member.flush();
            }
        }
    }
    let _end = TURN.try_with(|turn| End(turn.replace(Turn::Open)));
    work()
}

/// Sees to it that `member` is written to: by the turn of this thread, by its newest group, or as the
/// leader of another.
pub(super) fn join(member: Arc<dyn Member>) {
    if is_first_in_turn() {
        let _ = TURN.try_with(|turn| turn.set(Turn::Taken(member)));
        return;
    }
    let newest = NEWEST.try_with(Cell::take).ok().flatten();
    let refused = match &newest {
        Some(group) => group.add(member),
        None => Err((member, Refusal::Full)),
    };
    let Err((member, refusal)) = refused else { return keep(newest) };
    // A group that was served is as good as a new one.
    let group = newest.filter(|_| refusal == Refusal::Over).unwrap_or_default();
    group.begin();
    keep(Some(Arc::clone(&group)));
    member.lead(&group);
}

fn is_first_in_turn() -> bool {
    let is_first = TURN.try_with(|turn| match turn.take() {
        Turn::Open => true,
        other => {
            turn.set(other);
            false
        }
    });
    is_first.unwrap_or(false)
}

fn keep(newest: Option<Arc<Group>>) {
    let _ = NEWEST.try_with(|home| home.set(newest));
}

/// Why a group takes no member.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Full,
    Over,
}

impl Group {
    fn begin(&self) {
        let mut state = self.lock();
        (state.open, state.followed) = (true, false);
    }

    fn add(&self, member: Arc<dyn Member>) -> Result<(), (Arc<dyn Member>, Refusal)> {
        let mut state = self.lock();
        if !state.open {
            return Err((member, Refusal::Over));
        }
        if !state.followed {
            state.followed = true;
            drop(state);
            member.wake_task();
            return Ok(());
        }
        if state.members.len() == SIZE {
            return Err((member, Refusal::Full));
        }
        if state.members.capacity() == 0 {
            state.members.reserve_exact(SIZE);
        }
        state.members.push(member);
        Ok(())
    }

    /// Writes for all members, and takes no more. It is the leader who calls this.
    pub(super) fn serve(&self) {
        self.end().0.by_ref().for_each(|member| member.flush());
    }

    /// Takes no more. The members that are dropped unserved get turns of their own.
    pub(super) fn end(&self) -> Unserved {
        let mut state = self.lock();
        state.open = false;
        Unserved(mem::take(&mut state.members).into_iter())
    }

    /// Nothing panics while holding the lock, so poison has no meaning here.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nobody is forgotten, even if the leader panics or is gone.
pub(super) struct Unserved(vec::IntoIter<Arc<dyn Member>>);

impl Drop for Unserved {
    fn drop(&mut self) {
        self.0.by_ref().for_each(|member| member.wake_task());
    }
}

/// How many a leader writes for: enough that its turn is shared by many, so few that it is short.
const SIZE: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Probe {
        /// What was asked of it, a letter each.
        asked: Mutex<String>,
        leads: Mutex<Option<Arc<Group>>>,
    }

    impl Probe {
        fn asked(&self) -> String {
            mem::take(&mut self.asked.lock().unwrap())
        }

        fn group(&self) -> Arc<Group> {
            self.leads.lock().unwrap().take().expect("it leads")
        }
    }

    impl Member for Probe {
        fn flush(&self) {
            self.asked.lock().unwrap().push('f');
        }

        fn lead(&self, group: &Arc<Group>) {
            *self.leads.lock().unwrap() = Some(Arc::clone(group));
            self.asked.lock().unwrap().push('l');
        }

        fn wake_task(&self) {
            self.asked.lock().unwrap().push('w');
        }
    }

    fn probes<const N: usize>() -> [Arc<Probe>; N] {
        let probes = std::array::from_fn(|_| Arc::new(Probe::default()));
        probes.iter().for_each(|probe: &Arc<Probe>| join(Arc::clone(probe) as Arc<dyn Member>));
        probes
    }

    #[test]
    fn the_first_leads_and_writes_for_those_that_follow() {
        let [first, second, third, fourth] = probes();
        first.group().serve();
        let asked = [first, second, third, fourth].map(|probe| probe.asked());
        assert_eq!(asked, ["l", "w", "f", "f"]);
    }

    #[test]
    fn whoever_is_woken_after_the_leaders_turn_leads() {
        let [first] = probes();
        first.group().serve();
        let [next, second, third] = probes();
        assert_eq!([next, second, third].map(|probe| probe.asked()), ["l", "w", ""]);
    }

    #[test]
    fn the_first_in_a_turn_is_written_to_at_its_end() {
        let [first, second, third] = turn(|| {
            let probes = probes();
            assert_eq!(probes.each_ref().map(|probe| probe.asked()), ["", "l", "w"]);
            probes
        });
        assert_eq!([first, second, third].map(|probe| probe.asked()), ["f", "", ""]);
        let [after] = probes();
        assert_eq!(after.asked(), "");
    }

    #[test]
    fn a_turn_within_a_turn_has_its_own_first() {
        let asked = turn(|| {
            let [inner] = turn(probes);
            let [outer] = probes();
            [inner.asked(), outer.asked()]
        });
        assert_eq!(asked, ["f", ""]);
    }

    #[test]
    fn a_turn_that_panics_writes_nevertheless() {
        let [first] = [Arc::new(Probe::default())];
        let member = Arc::clone(&first) as Arc<dyn Member>;
        let panics = std::panic::AssertUnwindSafe(|| {
            turn(|| {
                join(member);
                panic!("as it was asked to");
            })
        });
        assert!(std::panic::catch_unwind(panics).is_err());
        assert_eq!(first.asked(), "f");
    }

    #[test]
    fn a_full_group_is_followed_by_another() {
        let probes = probes::<{ 2 * (SIZE + 2) }>();
        let leaders = probes.iter().filter(|probe| probe.leads.lock().unwrap().is_some());
        assert_eq!(leaders.count(), 2);
    }

    #[test]
    fn members_whose_leader_is_gone_get_turns_of_their_own() {
        let [first, _second, third] = probes();
        drop(first.group().end());
        assert_eq!(third.asked(), "w");
    }

    #[test]
    fn other_threads_have_groups_of_their_own() {
        let [first] = probes();
        let [elsewhere] = std::thread::spawn(probes::<1>).join().expect("no panic");
        assert_eq!([first, elsewhere].map(|probe| probe.asked()), ["l", "l"]);
    }
}
