// A client of each node, which does not move: what any of them has heard counts as sent, and each sees who leaves.
import { unique } from "../support/client.js";
import { ok } from "../support/promises.js";

/** Connects to a node itself, and joins the rooms and lobbies of these topics. */
export async function watch(t, client, node, topics) {
  const user = unique("watcher");
  const socket = client.connect(t, { to: node, params: { user_id: user } });
  const watcher = { user, node, heard: new Map(), left: [] };
  const joins = topics.flatMap((topic) => {
    const messages = [];
    watcher.heard.set(topic, messages);
    const room = socket.channel(`room:${topic}`);
    room.on("new_msg", ({ user, n, at }) => messages.push({ user, n, at }));

    const lobby = socket.channel(`lobby:${topic}`, { name: user });
    let inDiff = false; // and not in the state that follows a join
    lobby.on("presence_diff", () => (inDiff = true));
    const presence = new client.phoenix.Presence(lobby);
    lobby.on("presence_diff", () => (inDiff = false));
    presence.onLeave((key, { metas }) => {
      if (inDiff && metas.length === 0) watcher.left.push({ user: key, at: Date.now() });
    });
    return [room.join(), lobby.join()];
  });
  await Promise.all(joins.map(ok));
  return watcher;
}

/** What at least one watcher has heard, each message once. */
export function heardOn(topic, watchers) {
  const messages = new Map();
  for (const { heard } of watchers) {
    for (const message of heard.get(topic)) messages.set(`${message.user} ${message.n}`, message);
  }
  return [...messages.values()];
}
