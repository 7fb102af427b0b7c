// A client of a `log:*` topic of the reference application, which has a history.
import { setTimeout as passing } from "node:timers/promises";
import { unique } from "./client.js";
import { ok, outcome } from "./promises.js";

const ANSWERED_MS = 2000;

/** Joins the topic. `pauseMs` lies between two messages that it writes. */
export async function enterLog(t, { to, client, topic, name, params, keep, pauseMs }) {
  const socket = client.connect(t, { to, params: { user_id: unique(name), ...params }, keep, timeout: ANSWERED_MS });
  const channel = socket.channel(topic);
  const received = [];
  channel.on("new_msg", ({ text }) => received.push(text));
  const arrivals = [];
  const joining = channel.join();
  joining.receive("ok", ({ arrival }) => arrivals.push(arrival));
  await ok(joining);
  const publish = async (text) => (await outcome(channel.push("publish", { text }, ANSWERED_MS)))[0];
  return {
    received,
    arrivals,
    publish,
    /** Writes for as long as it is told to. Returns what the server has kept, by its answers. */
    async write(isWriting) {
      const kept = [];
      for (let number = 0; isWriting(); number += 1) {
        const text = `${name} ${number}`;
        void publish(text).then((status) => status === "ok" && kept.push(text));
        await passing(pauseMs);
      }
      await passing(ANSWERED_MS + 500); // every push has ended
      return kept;
    },
    /** Loses the connection, and returns what connects again. */
    leaveNetwork() {
      const { connect } = socket;
      socket.connect = () => {};
      socket.conn.close();
      return () => {
        socket.connect = connect;
        socket.reconnectTimer.scheduleTimeout();
      };
    },
  };
}
