//! Panics of application code, caught where they would otherwise end what belongs to others.
//!
//! This needs the default `panic = "unwind"`.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use crate::limited;
use crate::log_limit::excerpt;
use crate::telemetry::PANICS;

/// Error of application code that panicked. The panic is logged and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panicked;

/// Runs `work` and catches its panic. `place` names the code in the log and in the metric.
///
/// # Errors
///
/// If `work` panics.
pub fn catch<T>(place: &'static str, work: impl FnOnce() -> T) -> Result<T, Panicked> {
    // What a panic leaves behind is dropped, not used.
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| report(place, &*panic))
}

/// Awaits `future` and catches its panic, as [`catch`] does.
pub(crate) async fn catch_async<F: Future>(
    place: &'static str,
    future: F,
) -> Result<F::Output, Panicked> {
    let mut future = pin!(future);
    poll_fn(|cx| match catch(place, || future.as_mut().poll(cx)) {
        Ok(polled) => polled.map(Ok),
        Err(panicked) => Poll::Ready(Err(panicked)),
    })
    .await
}

/// Logs and counts the panic of application code that somebody else has caught.
pub fn report(place: &'static str, panic: &(dyn Any + Send)) -> Panicked {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let panic = text.unwrap_or("not a text");
    PANICS.increment([place], 1);
    limited!(ERROR, panic = ?excerpt(panic), "{place} panicked");
    Panicked
}

#[cfg(test)]
mod tests {
    use std::panic::panic_any;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_and_anything_else_is_the_result() {
        assert_eq!(catch("test", || 7), Ok(7));
        assert_eq!(catch("test", || panic!("requested")), Err::<(), _>(Panicked));
        assert_eq!(catch("test", || panic_any(7)), Err::<(), _>(Panicked));
        assert_eq!(catch_async("test", async { 7 }).await, Ok(7));
        let late = async {
            tokio::task::yield_now().await;
            panic!("requested")
        };
        assert_eq!(catch_async("test", late).await, Err::<(), _>(Panicked));
    }
}
