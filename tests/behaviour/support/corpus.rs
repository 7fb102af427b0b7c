//! Writes the messages that the suite sends as seeds for the fuzz targets, if `CORPUS_DIR` is set.

use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Larger seeds slow the fuzzer down more than they help.
const MAX_SIZE: usize = 4096;

/// The number of inputs saved of a kind that differs in every run.
const MAX_RANDOM: usize = 8;

/// Saves the first few inputs of a kind that differs in every run.
pub(crate) fn save_some(kind: &str, input: &[u8]) {
    static SAVED: AtomicUsize = AtomicUsize::new(0);
    if SAVED.fetch_add(1, Ordering::Relaxed) < MAX_RANDOM {
        save(kind, input);
    }
}

/// Writes an input into the folder of its kind, named by its content so that runs produce the same
/// files.
pub(crate) fn save(kind: &str, input: &[u8]) {
    let Some(folder) = env::var_os("CORPUS_DIR") else { return };
    if input.len() > MAX_SIZE {
        return;
    }
    let folder = PathBuf::from(folder).join(kind);
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    fs::create_dir_all(&folder).expect("a folder for the corpus");
    fs::write(folder.join(format!("{:016x}", hasher.finish())), input).expect("a seed written");
}
