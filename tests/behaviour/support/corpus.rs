//! Keeps what the suite sends, when asked to: the seeds of the fuzz targets.

use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;

/// A seed larger than this slows the fuzzer down more than it teaches it.
const LARGEST: usize = 4096;

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
