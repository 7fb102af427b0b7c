// Members of a room: a client with a session id, and the messages that it receives.
import { keepSession } from "../../../client/index.js";
import { unique } from "../support/client.js";
import { ok, outcome } from "../support/promises.js";

/** Short delays for the return to WebSocket. */
const SOON = { returnAfterMs: () => 200, steadyAfterMs: 200 };

export function members(client, kept) {
  const { LongPoll } = client.phoenix;

  /**
   * Joins `topic` as a member. With `longPollFallbackMs`, clients without fallback support fall back by hand. A `session`
   * of `null` is none.
   */
  async function member(t, { to, topic, payload, user = unique("user"), session, ...options }) {
    const params = kept || session === null ? { user_id: user } : { user_id: user, session: session ?? newId() };
    const unsent = [];
    const onUnsent = (pushes) => unsent.push(...pushes);
    const keep = (options) => withId(keepSession({ onUnsent, ...SOON, ...options }), session);
    const socket = client.socket(t, { to, params, ...(kept && { keep }), ...options });
    const needsHelp = !client.can.fallBack && client.can.changeTransport;
    if (options.longPollFallbackMs && needsHelp) fallBackByHand(socket, LongPoll);
    const me = { user, socket, unsent, ...enter(socket, topic, payload), isOnLongPoll: () => socket.transport === LongPoll };
    socket.connect();
    await ok(me.joined);
    return me;
  }

  /** Joins a topic and records the messages received on it. */
  function enter(socket, topic, payload) {
    const room = socket.channel(topic, payload);
    const received = { news: [], new_msg: [], joined: [] };
    for (const event of Object.keys(received)) room.on(event, (payload) => received[event].push(payload));
    const isThere = () => socket.isConnected() && room.state === "joined";
    /** Resolves to the status of the reply. */
    const ask = async (timeout) => (await outcome(room.push("ping", {}, timeout)))[0];
    const isAnswered = async () => (await ask()) === "ok";
    return { room, received, joined: room.join(), isThere, ask, isAnswered };
  }

  return Object.assign(member, { kept, enter });
}

/** Sets the session id, if there is one, so that two clients can share it. */
function withId(options, session) {
  if (!session) return options;
  return {
    ...options,
    params() {
      return { ...options.params.call(this), session };
    },
  };
}

/** Falls back to long poll as applications do with versions of phoenix.js that leave it to them. */
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
