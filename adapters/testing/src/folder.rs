//! [`Folder`]: where a test keeps its files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder that is removed when this is dropped.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Creates one among the temporary files of the system.
    #[allow(clippy::new_without_default, reason = "it creates something")]
    #[must_use]
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tower-channels-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Replaces a folder in it by a copy of another.
    pub(crate) fn replace(&self, folder: &str, by: &str) {
        fn copy(from: &Path, to: &Path) {
            fs::create_dir_all(to).expect("a folder");
            for entry in fs::read_dir(from).expect("a folder") {
                let entry = entry.expect("it is read");
                let to = to.join(entry.file_name());
                if entry.file_type().expect("it is known").is_dir() {
                    copy(&entry.path(), &to);
                } else {
                    fs::copy(entry.path(), to).expect("it is copied");
                }
            }
        }
        let _ = fs::remove_dir_all(self.0.join(folder));
        copy(&self.0.join(by), &self.0.join(folder));
    }

    /// The end of what an engine has printed.
    pub(crate) fn log(&self) -> String {
        let log = fs::read_to_string(self.0.join("log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(30).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
