//! The end of a channel whose client goes on on another node.

use std::sync::Arc;

use tower_channels_transports::{excerpt, limited};

use super::hearing::hear;
use super::{ChannelTask, TaskExit};
use crate::channel::arrival::Arrival;
use crate::channel::callbacks::Channel;
use crate::channel::mailbox::Command;
use crate::channel::moving::{PackRequest, PackedChannel};
use crate::channel::result::Reason;

impl<C: Channel> ChannelTask<C> {
    /// Ends the channel, which has handled all that its client has sent, and answers with what goes along. Does not
    /// answer if the channel ends otherwise.
    pub(super) async fn move_away(self, request: PackRequest) {
        let Self { mut guard, mut socket, mut channel, .. } = self;
        let PackRequest { ticket, reply } = request;
        let context = Arc::clone(&guard.context);
        let histories = context.pubsub.histories();
        let last = || histories.and_then(|histories| histories.last(&context.topic));
        let (heard, position) = context.subscription.leave(last);
        // What it has received counts as heard, and is lost unless it is handled here.
        while let Some(command) = guard.commands.try_recv() {
            let Command::Broadcast(broadcast) = command else { continue };
            let topic = broadcast.topic();
            let handled = hear::<C>(&mut channel, &mut socket, &broadcast).await;
            match handled.err().and_then(|error| TaskExit::after(error, topic)) {
                Some(TaskExit::Crashed(error)) => {
                    limited!(ERROR, ?topic, error = ?excerpt(&error.to_string()), "channel crashed");
                    return;
                }
                Some(_) => return,
                None => {}
            }
        }
        let packed = channel.pack(&socket).await;
        channel.terminate(Reason::Moved, &socket).await;
        drop(channel);
        let is_unplaced = context.subscription.is_unplaced();
        let follows = context.ownership.follows();
        let news = Arrival::news(context.arrival.get().map(|arrival| &**arrival));
        guard.finish_move(ticket);
        // If nobody waits any more, the presence goes when its time is over.
        let _ = reply.send(PackedChannel { packed, heard, position, is_unplaced, follows, news });
        limited!(DEBUG, topic = ?context.topic, "moved to another node");
    }
}
