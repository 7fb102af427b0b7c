//! Keeps what the suite sends, when asked to: the seeds of the fuzz targets.

use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A seed larger than this slows the fuzzer down more than it teaches it.
const LARGEST: usize = 4096;

/// How many inputs of a kind are kept whose bytes are new in every run.
const RANDOM: usize = 8;

/// Keeps the first few inputs of a kind that is new in every run.
pub(crate) fn keep_some(kind: &str, input: &[u8]) {
    static KEPT: AtomicUsize = AtomicUsize::new(0);
    if KEPT.fetch_add(1, Ordering::Relaxed) < RANDOM {
        keep(kind, input);
    }
}

/// Writes one input into the folder of its kind, named by its content so that runs agree.
pub(crate) fn keep(kind: &str, input: &[u8]) {
    let Some(folder) = env::var_os("CORPUS_DIR") else { return };
    if input.len() > LARGEST {
        return;
    }
    let folder = PathBuf::from(folder).join(kind);
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    fs::create_dir_all(&folder).expect("a folder for the corpus");
    fs::write(folder.join(format!("{:016x}", hasher.finish())), input).expect("a seed written");
}
