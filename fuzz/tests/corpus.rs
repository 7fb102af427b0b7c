//! Runs every target over its seeds, and over mutations of them that are the same in every run.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;

use tower_channels_fuzz::{TARGETS, Target};

const MUTATIONS: u64 = 4000;
/// Of a target whose every input takes long.
const FEW_MUTATIONS: u64 = 200;
const MAX_SIZE: usize = 8192;

#[test]
fn one_node_has_a_session() {
    run("claims");
}

#[test]
fn nodes_lose_nothing_in_silence() {
    run_for("cluster", FEW_MUTATIONS);
}

#[test]
fn frames_between_nodes_harm_no_node() {
    run("cluster_frame");
}

#[test]
fn of_a_shared_history_nothing_is_missing_in_silence() {
    run("history");
}

#[test]
fn sessions_of_other_nodes_harm_no_node() {
    run("moved_session");
}

#[test]
fn ndjson_bodies_decode_to_their_messages() {
    run("ndjson");
}

#[test]
fn presence_messages_are_applied_atomically() {
    run("presence_message");
}

#[test]
fn replicas_of_presence_converge() {
    run("presence_replicas");
}

#[test]
fn pushes_are_handled_once() {
    run("pushes");
}

#[test]
fn queries_survive_a_round_trip() {
    run("query");
}

#[test]
fn a_session_loses_and_repeats_nothing() {
    run("session");
}

#[test]
fn tokens_survive_a_round_trip() {
    run("token");
}

#[test]
fn frames_of_version_1_keep_their_meaning() {
    run("v1_text");
}

#[test]
fn text_frames_of_version_2_keep_their_meaning() {
    run("v2_text");
}

#[test]
fn binary_frames_of_version_2_keep_their_meaning() {
    run("v2_binary");
}

#[test]
fn a_websocket_decodes_the_same_however_it_is_split() {
    run("websocket_decoder");
}

#[test]
fn a_websocket_connection_answers_everything_and_ends() {
    run("websocket_connection");
}

#[test]
fn every_target_has_a_program_and_a_folder_of_seeds() {
    let names = |folder: &str| -> BTreeSet<String> {
        let files = fs::read_dir(root().join(folder)).expect(folder);
        files.map(|file| file.expect(folder).file_name().into_string().expect("UTF-8")).collect()
    };
    let targets: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(targets.len(), TARGETS.len());
    assert_eq!(names("corpus"), targets);
    assert_eq!(names("fuzz_targets"), targets.iter().map(|name| format!("{name}.rs")).collect());
}

fn run(name: &str) {
    run_for(name, MUTATIONS);
}

fn run_for(name: &str, mutations: u64) {
    let target = TARGETS.iter().find(|(known, _)| *known == name).expect(name);
    let seeds = seeds(name);
    assert!(!seeds.is_empty(), "no seeds");
    seeds.iter().for_each(|seed| check(target, seed));
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..mutations {
        let mut input = random.pick(&seeds).clone();
        for _ in 0..=random.below(4) {
            mutate(&mut input, &mut random, &seeds);
        }
        input.truncate(MAX_SIZE);
        check(target, &input);
    }
}

/// Runs a check, and prints the input on failure.
fn check((name, check): &Target, input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(input))) {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        eprintln!("{name} failed on {hex}\n  ({})", input.escape_ascii());
        resume_unwind(panic);
    }
}

/// Returns the seeds in the order of their names, so that all runs are the same.
fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = root().join("corpus").join(name);
    let files = fs::read_dir(folder).expect("a corpus");
    let paths: BTreeSet<_> = files.map(|file| file.expect("a seed").path()).collect();
    paths.iter().map(|path| fs::read(path).expect("a seed")).collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn mutate(input: &mut Vec<u8>, random: &mut Random, seeds: &[Vec<u8>]) {
    let at = random.below(input.len());
    let range = at..(at + 1 + random.below(16)).min(input.len());
    match random.below(7) {
        _ if input.is_empty() => input.push(random.below(256) as u8),
        0 => input[at] ^= 1 << random.below(8),
        1 => input[at] = *random.pick(b"\0\x01\x7d\x7e\x7f\x80\x81\x88\xff\"[]{}\\,:\n\r&=%u19e"),
        2 => input.insert(at, random.below(256) as u8),
        3 => drop(input.drain(range)),
        4 => {
            let copy = input[range].to_vec();
            let to = random.below(input.len());
            input.splice(to..to, copy);
        }
        5 => {
            let other = random.pick(seeds);
            let from = random.below(other.len());
            input.splice(at.., other[from..].iter().copied());
        }
        _ => input.truncate(at),
    }
}

/// xorshift64*
struct Random(u64);

impl Random {
    /// Returns a number below `bound`, or 0 if `bound` is 0.
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let random = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        if bound == 0 { 0 } else { random as usize % bound }
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}
