//! Thread-local buffers that connections borrow for the duration of one read or write, so that an
//! idle connection owns none.

use std::cell::Cell;
use std::thread::LocalKey;

thread_local! {
    static READ: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static WRITE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Lends the thread's read buffer, [`READ_SIZE`] bytes with unspecified content.
pub(super) fn with_read_buffer<R>(read: impl FnOnce(&mut [u8]) -> R) -> R {
    with_buffer(&READ, |buffer| {
        if buffer.is_empty() {
            buffer.resize(READ_SIZE, 0);
        }
        read(buffer)
    })
}

/// Lends the thread's write buffer, which may contain old bytes.
pub(super) fn with_write_buffer<R>(write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    with_buffer(&WRITE, write)
}

/// A nested call, or one during the destruction of the thread, gets a temporary buffer.
fn with_buffer<R>(
    key: &'static LocalKey<Cell<Vec<u8>>>,
    work: impl FnOnce(&mut Vec<u8>) -> R,
) -> R {
    let mut buffer = key.try_with(Cell::take).unwrap_or_default();
    let result = work(&mut buffer);
    let _ = key.try_with(|cell| cell.set(buffer));
    result
}

/// Most sockets hold less than this at a time.
pub(super) const READ_SIZE: usize = 64 * 1024;
