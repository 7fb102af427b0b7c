//! Phoenix Channels for any hyper/axum stack.
