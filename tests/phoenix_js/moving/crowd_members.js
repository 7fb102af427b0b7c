// A part of a crowd: a process with many clients, every tenth over long poll, all with `keepSession`. None keeps a list of who is there,
// which would cost more than all else.
import { clients } from "../support/client.js";
import { measureOwnLag } from "../support/lag.js";
import { until } from "../support/until.js";
import { goTo } from "./direct.js";
import { lacks, tally } from "./figures.js";
import { enter } from "./members.js";
import { ONLY, SETTLED_MS } from "./world.js";

const AT_ONCE = 10;
const ASK_EVERY_MS = 5000;

const members = [];
let direct;
let lag;

process.on("message", async ({ enter: entering, takeOut, putIn, end }) => {
  if (takeOut !== undefined) return direct.takeOut(takeOut);
  if (putIn !== undefined) return direct.putIn(putIn);
  process.send(entering ? await come(entering) : await leave(end));
});

/** Connects a client for each place, and returns the users. */
async function come({ hosts, places }) {
  direct = goTo(hosts);
  const [webSocket, longPoll] = await clients("phoenix-1.8", null);
  const t = { after() {} };
  for (let first = 0; first < places.length; first += AT_ONCE) {
    const few = places.slice(first, first + AT_ONCE).map(({ room: topic, lobby: lobbyTopic }, n) => {
      const client = n % 10 === 0 && !ONLY ? longPoll : webSocket;
      const transport = client.overWebSocket ? direct.WebSocket : client.phoenix.LongPoll;
      const to = { host: hosts[0] };
      return enter(t, { client, transport, mode: "kept", to, topic, lobbyTopic, looks: false, askEveryMs: ASK_EVERY_MS });
    });
    members.push(...(await Promise.all(few)));
  }
  lag = measureOwnLag();
  return members.map(({ user }) => user);
}

/** Waits until all have what was heard, and returns what they have seen, and how far the process was behind. */
async function leave({ heard }) {
  const behind = lag();
  const hasAll = (member) => member.isBack() && lacks(member, heard[member.topic]).length === 0;
  await until("all have everything", () => members.every(hasAll), SETTLED_MS).catch(() => {}); // that is counted
  await Promise.all(members.map((member) => member.leave()));
  return { tallies: members.map((member) => tally(member, heard[member.topic])), lag: behind };
}
