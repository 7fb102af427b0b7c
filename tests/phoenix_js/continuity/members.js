// Who takes part: a client with a session id, in a room, and what it hears there.
import { keepSession } from "../../../client/index.js";
import { unique } from "../support/client.js";
import { ok, outcome } from "../support/promises.js";

/** The way back to WebSocket, for the impatient. */
const SOON = { returnAfterMs: () => 200, steadyAfterMs: 200 };

export function members(client, kept) {
  const { LongPoll } = client.phoenix;

  /** A member of `topic` that has joined. With `longPollFallbackMs`, a client that cannot fall back is helped. */
  async function member(t, { to, topic, user = unique("user"), session = newId(), ...options }) {
    const params = kept ? { user_id: user } : { user_id: user, session };
    const keep = (options) => withId(keepSession({ ...options, ...SOON }), session);
    const socket = client.socket(t, { to, params, ...(kept && { keep }), ...options });
    const helpless = !client.can.fallBack && client.can.changeTransport;
    if (options.longPollFallbackMs && helpless) fallBackByHand(socket, LongPoll);
    const me = { user, socket, ...enter(socket, topic), isOnLongPoll: () => socket.transport === LongPoll };
    socket.connect();
    await ok(me.joined);
    return me;
  }

  /** Joins one topic more, and remembers what it hears. */
  function enter(socket, topic) {
    const room = socket.channel(topic);
    const heard = { news: [], new_msg: [], joined: [] };
    for (const event of Object.keys(heard)) room.on(event, (payload) => heard[event].push(payload));
    const isThere = () => socket.isConnected() && room.state === "joined";
    const isAnswered = async () => (await outcome(room.push("ping")))[0] === "ok";
    return { room, heard, joined: room.join(), isThere, isAnswered };
  }

  return Object.assign(member, { kept, enter });
}

/** Tests choose the id, for two clients to have the same. */
function withId(options, session) {
  return {
    ...options,
    params() {
      return { ...options.params.call(this), session };
    },
  };
}

/** What applications do about a WebSocket that does not open, where phoenix.js leaves it to them. */
function fallBackByHand(socket, LongPoll) {
  let opened = false;
  socket.onOpen(() => (opened = true));
  socket.onClose(() => (opened = false));
  socket.onError(() => {
    if (opened || socket.transport === LongPoll) return;
    setTimeout(() => {
      if (socket.transport === LongPoll) return;
      socket.replaceTransport(LongPoll);
      socket.connect();
    });
  });
}

export const newId = () => `${unique("s")}-`.padEnd(32, "x");
