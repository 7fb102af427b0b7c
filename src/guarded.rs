//! [`Guarded`]: a value of the application whose `Drop` may panic.

use std::ops::{Deref, DerefMut};

use tower_channels_transports::panics;

/// Owns a value of the application. If its `Drop` panics, that is caught, logged and counted: the value
/// may be dropped by a task that serves others, or while another panic unwinds, which would abort the
/// process.
pub(crate) struct Guarded<T>(Option<T>);

impl<T> Guarded<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Some(value))
    }

    /// Takes the value out, which must not be used through the guard afterwards.
    pub(crate) fn take(&mut self) -> Option<T> {
        self.0.take()
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        if std::mem::needs_drop::<T>() {
            let _ = panics::catch("drop", || drop(self.0.take()));
        }
    }
}

impl<T> Deref for Guarded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("not taken")
    }
}

impl<T> DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("not taken")
    }
}
