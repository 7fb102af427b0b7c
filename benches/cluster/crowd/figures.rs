//! What a crowd has lost, and how long its clients were away.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::member::Member;

/// How long a message may have been on its way, at most, before a client lost its connection.
const ON_THE_WAY: Duration = Duration::from_secs(1);

/// What has become of all clients.
#[derive(Default)]
pub(super) struct Figures {
    pub(super) due: usize,
    pub(super) lost: usize,
    pub(super) missed: usize,
    pub(super) twice: usize,
    pub(super) anew: usize,
    pub(super) gaps: usize,
    /// How long clients were away until they had everything, in ms.
    pub(super) returns: Vec<f64>,
}

pub(super) fn figures(members: &[Member], sent: &[(usize, Instant)]) -> Figures {
    let mut figures = Figures::default();
    for member in members {
        let due = sent.iter().filter(|(room, _)| *room == member.room).count();
        let distinct = member.heard.iter().map(|(id, _)| *id).collect::<HashSet<_>>().len();
        let (anew, gaps) = (member.anew - member.first_joins(), member.gaps);
        let lacking = due - distinct;
        *if anew + gaps > 0 { &mut figures.missed } else { &mut figures.lost } += lacking;
        figures.due += due;
        figures.twice += member.heard.len() - distinct;
        figures.anew += anew;
        figures.gaps += gaps;
        for &(from, to) in &member.absences {
            let heard = member.heard.iter().filter(|(id, at)| {
                let (_, sent) = sent[*id];
                sent + ON_THE_WAY > from && sent <= to && *at >= from
            });
            let last = heard.map(|(_, at)| *at).fold(to, Instant::max);
            figures.returns.push((last - from).as_secs_f64() * 1e3);
        }
    }
    figures
}
