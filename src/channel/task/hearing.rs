//! The broadcasts that come to a channel.

use std::sync::Arc;

use crate::channel::callbacks::{Channel, Socket};
use crate::channel::context::Caller;
use crate::channel::error::{Error, Outcome, Result};
use crate::topics::broadcast::Broadcast;

/// Handles a broadcast that has come to the channel: of its own topic, or of another one.
pub(super) async fn hear<C: Channel>(
    channel: &mut C,
    socket: &mut Socket<C>,
    broadcast: &Arc<Broadcast>,
) -> Result<()> {
    let (topic, event) = (broadcast.topic(), broadcast.event());
    if topic != socket.topic() {
        // Unless it has unsubscribed meanwhile.
        return if socket.context().resources.hears(topic) {
            channel.handle_broadcast(topic, event, broadcast.payload().clone(), socket).await
        } else {
            Ok(())
        };
    }
    let is_told = socket.context().client.positions.are_wanted();
    let position = broadcast.position().filter(|_| is_told);
    if position.is_some() && !C::INTERCEPT.contains(&event) {
        // It has come this way for the order.
        socket.context().forward(Caller::ChannelTask, broadcast);
        return Ok(());
    }
    position.into_iter().for_each(|position| socket.begin_telling(position));
    let handled = channel.handle_out(event, broadcast.payload().clone(), socket).await;
    if position.is_some() && handled.is_ok() {
        socket.finish_telling();
    }
    handled
}

/// Handles what the client has missed of the topic's history, in order.
pub(super) async fn hear_missed<C: Channel>(
    channel: &mut C,
    socket: &mut Socket<C>,
    missed: Vec<Arc<Broadcast>>,
) -> Result<()> {
    for broadcast in missed {
        tokio::task::coop::consume_budget().await;
        match hear(channel, socket, &broadcast).await {
            // There is no push to reply to.
            Err(Error(Outcome::Reply(_))) | Ok(()) => {}
            ended => return ended,
        }
    }
    Ok(())
}
