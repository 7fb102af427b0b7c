//! Who connects: devices of two people.

use tower_channels::{ConnectInfo, Rejected};

use crate::board::Boards;
use crate::document::Letter;
use crate::notifications::Inboxes;

/// What all sockets and requests share.
#[derive(Clone, Default)]
pub struct State {
    pub inboxes: Inboxes,
    pub boards: Boards,
    pub letter: Letter,
}

/// The assigns of a socket: one device of a person.
pub struct Device {
    pub user: String,
    pub state: State,
}

/// There are no passwords here: an application takes the user from a token.
pub async fn connect(info: ConnectInfo, state: State) -> Result<Device, Rejected> {
    match info.param("user") {
        Some(user @ ("ada" | "bob")) => Ok(Device { user: user.to_owned(), state }),
        _ => Err(Rejected::reason("no such user")),
    }
}
