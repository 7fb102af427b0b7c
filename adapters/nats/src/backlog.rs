//! [`Backlog`]: how much was read from a connection and waits to be delivered.

/// Estimates how many bytes wait between a connection and the task that delivers them. The client crate bounds
/// its queues in messages alone, and counts the bytes that it reads.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// Of the bytes read, how many do not wait any more.
    delivered: u64,
}

/// What a server holds for a client that does not read, by default.
const MAX_BYTES: u64 = 64 << 20;

/// What the protocol adds to subject and payload, about: `MSG`, spaces, numbers and ends of lines.
const OVERHEAD: usize = 18;

impl Backlog {
    /// A message was delivered; `length` is that of its subjects and its payload.
    pub(crate) fn delivered(&mut self, length: usize) {
        self.delivered += (length + OVERHEAD) as u64;
    }

    /// Nothing waits when `read` bytes have been read in all: corrects the estimate.
    pub(crate) fn emptied(&mut self, read: u64) {
        self.delivered = read;
    }

    /// Whether more than 64 MiB wait.
    pub(crate) fn is_exceeded(&self, read: u64) -> bool {
        read.saturating_sub(self.delivered) > MAX_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_and_not_delivered_counts() {
        let mut backlog = Backlog::default();
        assert!(!backlog.is_exceeded(MAX_BYTES));
        assert!(backlog.is_exceeded(MAX_BYTES + 1));
        backlog.delivered(100);
        assert!(!backlog.is_exceeded(MAX_BYTES + 100));
        assert!(backlog.is_exceeded(MAX_BYTES + 200));
    }

    #[test]
    fn an_empty_queue_corrects_the_estimate() {
        let mut backlog = Backlog::default();
        backlog.emptied(1000);
        assert!(!backlog.is_exceeded(MAX_BYTES + 1000));
        backlog.delivered(1 << 20);
        backlog.emptied(2000);
        assert!(backlog.is_exceeded(MAX_BYTES + 2001));
        assert!(!backlog.is_exceeded(0));
    }
}
