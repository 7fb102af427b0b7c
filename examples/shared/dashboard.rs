//! The dashboard of an example: for this machine alone, or with `DASHBOARD_PASSWORD` for everybody who knows that.

use std::env;
use std::net::SocketAddr;

use axum::extract::ConnectInfo;
use tower_channels::Endpoint;
use tower_channels_dashboard::{Access, Dashboard, Parts, has_password, is_local};

/// Creates the dashboard of an endpoint.
pub fn dashboard<A: Send + Sync + 'static>(endpoint: &Endpoint<A>) -> Dashboard {
    let password = password();
    Dashboard::new(endpoint).authorize(move |request| {
        let access = access(&request, password.as_deref());
        async move { access }
    })
}

/// Prints where the example and its dashboard are.
pub fn announce(address: SocketAddr) {
    let whom = password().map_or("from this machine", |_| "with DASHBOARD_PASSWORD");
    println!("listening on http://{address}");
    println!("its dashboard is at http://{address}/dashboard, {whom}");
}

fn password() -> Option<String> {
    env::var("DASHBOARD_PASSWORD").ok()
}

/// Allows whoever knows the password to view and disconnect; without a password, requests from this machine.
fn access(request: &Parts, password: Option<&str>) -> Access {
    let peer = request.extensions.get::<ConnectInfo<SocketAddr>>();
    match password {
        Some(password) if has_password(request, password) => Access::ALL,
        Some(_) => Access::LOGIN,
        None if peer.is_some_and(|peer| is_local(request, peer.0)) => Access::ALL,
        None => Access::NONE,
    }
}
