//! Reads the body of a POST.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::memory::Reservation;

/// Why a body was not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyError {
    TooLarge,
    TooSlow,
    Broken,
    /// The memory of the endpoint is exceeded.
    NoMemory,
}

/// Reads a body of at most `limit` bytes within `timeout`, and reserves what it holds.
pub(super) async fn read<B: Body>(
    body: Pin<&mut B>,
    limit: usize,
    timeout: Duration,
    held: Option<&mut Reservation>,
) -> Result<Bytes, BodyError> {
    let read = read_all(body, limit, held);
    tokio::time::timeout(timeout, read).await.unwrap_or(Err(BodyError::TooSlow))
}

/// Copies the chunks together: keeping them would keep the server's read buffers, which may be much
/// larger. Reserves no memory that the client has only announced.
async fn read_all<B: Body>(
    body: Pin<&mut B>,
    limit: usize,
    mut held: Option<&mut Reservation>,
) -> Result<Bytes, BodyError> {
    let mut body = Limited::new(body.map_err(|_| BodyError::Broken), limit);
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
            Some(_) => BodyError::TooLarge,
            None => BodyError::Broken,
        })?;
        // Trailers are ignored.
        let Ok(mut data) = frame.into_data() else { continue };
        while data.has_remaining() {
            let chunk = data.chunk();
            bytes.extend_from_slice(chunk);
            data.advance(chunk.len());
        }
        if let Some(held) = &mut held {
            held.set(bytes.capacity());
            if let Some(memory) = held.take_exceeded() {
                memory.relieve();
                return Err(BodyError::NoMemory);
            }
        }
    }
    Ok(bytes.into())
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "request body too large",
            Self::TooSlow => "request body timed out",
            Self::NoMemory => "no memory for the request body",
            Self::Broken => "request body broken off",
        })
    }
}

impl Error for BodyError {}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::pin;
    use std::task::{Context, Poll};

    use http_body::Frame;
    use http_body_util::Full;

    use super::*;

    /// A body that is pending until it is polled so many times.
    struct Slow(u32, Full<Bytes>);

    impl Body for Slow {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            if self.0 == 0 {
                return Pin::new(&mut self.1).poll_frame(cx);
            }
            self.0 -= 1;
            Poll::Pending
        }
    }

    const TIMEOUT: Duration = Duration::from_secs(15);

    async fn read_slow(pending: u32, limit: usize) -> Result<Bytes, BodyError> {
        read(pin!(Slow(pending, Full::from("hello"))), limit, TIMEOUT, None).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_arrive_times_out() {
        assert_eq!(read_slow(u32::MAX, 5).await, Err(BodyError::TooSlow));
    }

    #[tokio::test]
    async fn a_body_may_have_exactly_the_limit() {
        assert_eq!(read_slow(0, 4).await, Err(BodyError::TooLarge));
        assert_eq!(read_slow(0, 5).await, Ok("hello".into()));
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_an_error() {
        /// Half a message, and then the connection is reset.
        struct Broken(Option<Bytes>);
        impl Body for Broken {
            type Data = Bytes;
            type Error = &'static str;

            fn poll_frame(
                mut self: Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
                Poll::Ready(Some(self.0.take().map(Frame::data).ok_or("reset")))
            }
        }
        let read = read(pin!(Broken(Some("he".into()))), 5, TIMEOUT, None).await;
        assert_eq!(read, Err(BodyError::Broken));
    }
}
