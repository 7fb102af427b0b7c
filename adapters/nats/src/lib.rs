//! Several tower-channels nodes over NATS.
