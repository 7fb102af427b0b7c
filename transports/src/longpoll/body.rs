//! Reads the body of a POST.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::Body;
use tokio::time::Instant;

use crate::progress::{Progress, after};

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

/// Reads a body of at most `limit` bytes. It times out when nothing arrives for `timeout`, or when it
/// makes too little [progress](Progress).
///
/// Copies the chunks together: keeping them would keep the server's read buffers, which may be much
/// larger. Reserves no memory that the client has only announced.
pub(super) async fn read<B: Body>(
    body: Pin<&mut B>,
    limit: usize,
    timeout: Duration,
    mut held: Option<&mut Reservation>,
) -> Result<Bytes, BodyError> {
    let mut bytes = Vec::new();
    let read = for_each_chunk(body, timeout, |mut data| {
        if data.remaining() > limit - bytes.len() {
            return Err(BodyError::TooLarge);
        }
        while data.has_remaining() {
            let chunk = data.chunk();
            bytes.extend_from_slice(chunk);
            data.advance(chunk.len());
        }
        held.as_mut().map_or(Ok(()), |held| reserve(held, bytes.capacity()))
    });
    read.await?;
    Ok(bytes.into())
}

/// Reserves what a body holds. The caller holds no lock.
pub(super) fn reserve(held: &mut Reservation, bytes: usize) -> Result<(), BodyError> {
    held.set(bytes);
    if let Some(memory) = held.take_exceeded() {
        memory.relieve();
        if memory.is_exceeded() {
            return Err(BodyError::NoMemory);
        }
    }
    Ok(())
}

/// Reads and drops the rest of a body: until it ends, exceeds `limit`, or for as long as `timeout`.
/// Progress extends nothing: the client may be anyone, and has its answer.
pub(super) async fn discard<B: Body>(body: Pin<&mut B>, limit: usize, timeout: Duration) {
    let mut left = limit;
    let read = for_each_chunk(body, timeout, |data| {
        left = left.checked_sub(data.remaining()).ok_or(BodyError::TooLarge)?;
        Ok(())
    });
    let _ = tokio::time::timeout(timeout, read).await;
}

/// Passes the data of a body to `take`. Trailers are ignored.
async fn for_each_chunk<B: Body>(
    mut body: Pin<&mut B>,
    timeout: Duration,
    mut take: impl FnMut(B::Data) -> Result<(), BodyError>,
) -> Result<(), BodyError> {
    let mut last = Instant::now();
    let mut progress = Progress::new(last);
    // Set again when it fires too early, and not with every chunk.
    let mut timer = pin!(tokio::time::sleep_until(progress.deadline(timeout)));
    loop {
        let frame = poll_fn(|cx| {
            if let Poll::Ready(frame) = body.as_mut().poll_frame(cx) {
                return Poll::Ready(Ok(frame));
            }
            loop {
                ready!(timer.as_mut().poll(cx));
                let deadline = progress.deadline(timeout).min(after(last, timeout));
                if deadline <= Instant::now() {
                    return Poll::Ready(Err(BodyError::TooSlow));
                }
                timer.as_mut().reset(deadline);
            }
        });
        let Some(frame) = frame.await? else { return Ok(()) };
        let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
        if data.has_remaining() {
            last = Instant::now();
            progress.add(data.remaining());
            take(data)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::pin;
    use std::task::{Context, Poll};

    use http_body::Frame;
    use http_body_util::Full;

    use super::*;
    use crate::frame::Message;
    use crate::memory::Memory;
    use crate::outbox;

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

    /// A body that yields `size` bytes each second, `count` times.
    struct Steady(tokio::time::Interval, usize, u32);

    impl Steady {
        fn new(size: usize, count: u32) -> Self {
            Self(tokio::time::interval(Duration::from_secs(1)), size, count)
        }
    }

    impl Body for Steady {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            if self.2 == 0 {
                return Poll::Ready(None);
            }
            std::task::ready!(self.0.poll_tick(cx));
            self.2 -= 1;
            Poll::Ready(Some(Ok(Frame::data(vec![b'x'; self.1].into()))))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_keeps_arriving_may_take_longer_than_the_timeout() {
        let read = read(pin!(Steady::new(10_000, 40)), 1 << 20, TIMEOUT, None).await;
        assert_eq!(read.map(|bytes| bytes.len()), Ok(400_000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_drips_times_out_as_if_nothing_came() {
        let begun = tokio::time::Instant::now();
        let read = read(pin!(Steady::new(1, 60)), 1 << 20, TIMEOUT, None).await;
        assert_eq!(read, Err(BodyError::TooSlow));
        assert_eq!(begun.elapsed().as_secs(), 15);
    }

    #[tokio::test(start_paused = true)]
    async fn the_rest_of_a_body_is_read_for_no_longer_than_the_timeout() {
        let begun = Instant::now();
        discard(pin!(Steady::new(10_000, 4000)), usize::MAX, TIMEOUT).await;
        assert_eq!(begun.elapsed().as_secs(), 15);
        discard(pin!(Steady::new(10_000, 5)), usize::MAX, TIMEOUT).await;
        assert!(begun.elapsed().as_secs() < 15 + 6);
    }

    #[tokio::test]
    async fn a_body_may_have_exactly_the_limit() {
        assert_eq!(read_slow(0, 4).await, Err(BodyError::TooLarge));
        assert_eq!(read_slow(0, 5).await, Ok("hello".into()));
    }

    #[tokio::test]
    async fn a_body_is_read_if_closing_a_session_makes_room_for_it() {
        let memory = Memory::new(100_000);
        let (outbox, _receiver) = outbox::channel_in(1 << 20, &memory);
        outbox.push(Message::binary(vec![0; 85_000]));
        let mut held = Reservation::new(memory.account());
        let body = Full::from(vec![b' '; 30_000]);
        let read = read(pin!(Slow(0, body)), 1 << 20, TIMEOUT, Some(&mut held)).await;
        assert_eq!((read.map(|body| body.len()), outbox.is_closed()), (Ok(30_000), true));
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
