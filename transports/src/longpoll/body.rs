//! Reads the body of a POST.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::Body;
use http_body_util::BodyExt;

/// Why a body was not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    TooLarge,
    TooSlow,
    Broken,
}

/// Reads a body of at most `limit` bytes, for as long as `timeout`.
pub(super) async fn read<B: Body>(
    body: Pin<&mut B>,
    limit: usize,
    timeout: Duration,
) -> Result<Bytes, Unread> {
    let mut whole = pin!(read_whole(body, limit));
    match at_once(whole.as_mut()).await {
        Some(read) => read,
        None => tokio::time::timeout(timeout, whole).await.unwrap_or(Err(Unread::TooSlow)),
    }
}

/// What a future has to say that is polled twice: hyper has a body that came with its head only when
/// it is asked again. A timer for it would cost more than the body.
async fn at_once<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    let mut asked = false;
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if asked => Poll::Ready(None),
        Poll::Pending => {
            asked = true;
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await
}

/// Reads a body of at most `limit` bytes, and reserves nothing on its word. One that comes whole is
/// not copied.
async fn read_whole<B: Body>(mut body: Pin<&mut B>, limit: usize) -> Result<Bytes, Unread> {
    let (mut whole, mut pieces) = (Bytes::new(), Vec::new());
    while let Some(frame) = body.frame().await {
        let Ok(mut data) = frame.map_err(|_| Unread::Broken)?.into_data() else { continue };
        if data.remaining() > limit - whole.len() - pieces.len() {
            return Err(Unread::TooLarge);
        }
        if whole.is_empty() && pieces.is_empty() {
            whole = data.copy_to_bytes(data.remaining());
            continue;
        }
        pieces.extend_from_slice(&std::mem::take(&mut whole));
        while data.has_remaining() {
            let chunk = data.chunk();
            pieces.extend_from_slice(chunk);
            data.advance(chunk.len());
        }
    }
    Ok(if pieces.is_empty() { whole } else { pieces.into() })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::task::Context;

    use http_body::Frame;
    use http_body_util::Full;

    use super::*;

    /// A body that has nothing to say as often as this.
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

    const PATIENCE: Duration = Duration::from_secs(15);

    async fn read_slow(pending: u32, limit: usize) -> Result<Bytes, Unread> {
        read(pin!(Slow(pending, Full::from("hello"))), limit, PATIENCE).await
    }

    #[test]
    fn a_body_that_is_there_when_it_is_asked_twice_needs_no_timer() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        for pending in [0, 1] {
            assert_eq!(runtime.block_on(read_slow(pending, 5)), Ok("hello".into()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_given_up() {
        assert_eq!(read_slow(u32::MAX, 5).await, Err(Unread::TooSlow));
    }

    #[tokio::test]
    async fn a_body_may_have_just_the_limit() {
        assert_eq!(read_slow(0, 4).await, Err(Unread::TooLarge));
        assert_eq!(read_slow(0, 5).await, Ok("hello".into()));
    }
}
