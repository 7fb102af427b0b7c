//! The endpoint in every stack that it is mounted in, driven over both transports, and as a service
//! without a network.

#[path = "../support/capture.rs"]
mod capture;
mod client;
mod endpoint;
mod layers;
mod misuse;
mod stacks;
