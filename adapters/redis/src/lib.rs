//! Several tower-channels nodes over Redis or Valkey.
