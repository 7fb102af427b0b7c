//! Buffers of the thread, lent to a connection for the moment in which it reads or writes, so that
//! no connection has to own one.

use std::cell::Cell;
use std::thread::LocalKey;

thread_local! {
    static READ: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static WRITE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Lends a buffer to read into; what is in it means nothing.
pub(super) fn reading<R>(read: impl FnOnce(&mut [u8]) -> R) -> R {
    lend(&READ, |buffer| {
        if buffer.is_empty() {
            buffer.resize(READ_SIZE, 0);
        }
        read(buffer)
    })
}

/// Lends a buffer to put bytes together in.
pub(super) fn writing<R>(write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    lend(&WRITE, write)
}

/// Whoever asks while the buffer is lent, or when the thread is ending, gets one of his own.
fn lend<R>(key: &'static LocalKey<Cell<Vec<u8>>>, work: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    let mut buffer = key.try_with(Cell::take).unwrap_or_default();
    let result = work(&mut buffer);
    let _ = key.try_with(|home| home.set(buffer));
    result
}

/// As much as a socket usually has at once.
pub(super) const READ_SIZE: usize = 64 * 1024;
