// A client of each node, which does not move: what any of them has heard counts as sent, and each sees who leaves.
import { repeated } from "../continuity/writers.js";
import { unique } from "../support/client.js";
import { ok } from "../support/promises.js";
import { HEARTBEAT_MS } from "./members.js";

/** Connects to a node itself, and joins these rooms and lobbies. */
export async function watch(t, client, node, { rooms, lobbies }) {
  const user = unique("watcher");
  const socket = client.connect(t, { to: node, params: { user_id: user }, heartbeatIntervalMs: HEARTBEAT_MS });
  const watcher = { user, node, heard: new Map(), left: [] };
  const joins = [...rooms.map(enterRoom), ...lobbies.map(enterLobby)];

  function enterRoom(topic) {
    const messages = [];
    watcher.heard.set(topic, messages);
    const room = socket.channel(topic);
    room.on("new_msg", ({ user, n, at }) => messages.push({ user, n, at }));
    return room.join();
  }

  function enterLobby(topic) {
    const lobby = socket.channel(topic, { name: user });
    let inDiff = false; // and not in the state that follows a join
    lobby.on("presence_diff", () => (inDiff = true));
    const presence = new client.phoenix.Presence(lobby);
    lobby.on("presence_diff", () => (inDiff = false));
    presence.onLeave((key, { metas }) => inDiff && metas.length === 0 && watcher.left.push(key));
    return lobby.join();
  }

  await Promise.all(joins.map(ok));
  return watcher;
}

/** What at least one watcher has heard, each message once. What a node alone has heard that was killed has died with it. */
export function heardOn(topic, watchers) {
  const messages = new Map();
  for (const { heard } of watchers.filter(({ node }) => node.isUp !== false)) {
    for (const message of heard.get(topic)) messages.set(`${message.user} ${message.n}`, message);
  }
  return [...messages.values()];
}

/** How many of these users have left in the eyes of a watcher, if only for a moment. */
export const left = (users, watchers) => users.filter((user) => watchers.some(({ left }) => left.includes(user))).length;

/** How often a watcher has heard a message of one of these users again: its push was handled twice. */
export function handledTwice(users, watchers) {
  const again = ({ heard }) => [...heard.values()].flatMap(repeated).filter(({ user }) => users.includes(user)).length;
  return Math.max(...watchers.map(again));
}
