// Counts what became of what was written, and how long anyone waited.
import { by, missing, repeated, upTo } from "../continuity/writers.js";
import { heardOn } from "./watchers.js";

/** How long nobody may be without an answer, or away from the room. */
export const HUNG_MS = 2000;

export const COLUMNS = [
  ...["what", "clients", "moves", "sent", "due", "lost", "missed", "twice", "again", "order", "unheard", "anew"],
  ...["answer", "hung", "away", "left", "back", "p99"],
];

/** Messages that a member lacks, and was not told of. */
export const lacks = (member, watchers) =>
  missing(heardOn(member.topic, watchers), member.arrivals).filter(({ at }) => !member.wasToldAfter(at));

/** The figures of a table's row. */
export function count({ members, watchers }, grantedMs) {
  const held = members.filter(({ isHeldToAll }) => isHeldToAll);
  const kept = held.filter(({ mode }) => mode === "kept");
  const sum = (of, number) => of.reduce((total, member) => total + number(member), 0);
  const heard = new Map([...new Set(members.map(({ topic }) => topic))].map((topic) => [topic, heardOn(topic, watchers)]));
  const heardBy = ({ topic }) => heard.get(topic);
  const waits = members.flatMap((member) => member.waits.filter(({ status }) => status !== "interrupted"));
  const absences = members.flatMap(({ away }) => away.map(([from, to = Date.now()]) => to - from));
  const returns = held.flatMap(returnsOf).sort((a, b) => a - b);
  const atMost = HUNG_MS + grantedMs;

  return {
    clients: members.length,
    moves: sum(members, ({ away }) => away.length),
    sent: sum([...heard.values()], ({ length }) => length),
    due: sum(held, (member) => heardBy(member).length),
    lost: sum(held, (member) => lacks(member, watchers).length),
    missed: sum(held, (member) => missing(heardBy(member), member.arrivals).length) - sum(held, (member) => lacks(member, watchers).length),
    twice: sum(kept, ({ arrivals }) => repeated(arrivals).length) + Math.max(...watchers.map((watcher) => handledTwice(watcher, kept))),
    again: sum(held, ({ arrivals }) => repeated(arrivals).length),
    order: sum(kept, (member) => disorder(member, members)),
    onOneConnection: sum(members, ({ arrivals }) => repeated(arrivals.map((it) => ({ ...it, user: `${it.connection} ${it.user}` }))).length),
    unheard: sum(kept, (member) => unheard(member, heardBy(member)).length),
    anew: sum(held, ({ anew }) => anew.length),
    answer: Math.max(0, ...waits.map(({ ms }) => ms)),
    hung: waits.filter(({ ms }) => ms > atMost).length + absences.filter((ms) => ms > atMost).length,
    away: Math.max(0, ...absences),
    left: new Set(watchers.flatMap(({ left }) => left.map(({ user }) => user)).filter((user) => held.some((member) => member.user === user))).size,
    back: quantile(returns, 0.5),
    p99: quantile(returns, 0.99),
  };
}

/** Pushes of these writers that a watcher has heard more than once. */
function handledTwice({ heard }, writers) {
  const topics = new Set(writers.map(({ topic }) => topic));
  const isTheirs = ({ user }) => writers.some((writer) => writer.user === user);
  return [...topics].reduce((total, topic) => total + repeated(heard.get(topic)).filter(isTheirs).length, 0);
}

/** How often a member received a message of a writer after a later one. Before 1.7 the POSTs of a long poll overtake each other. */
function disorder({ arrivals }, writers) {
  let times = 0;
  for (const { user, client } of writers.filter(({ client }) => client.can.batchOverLongPoll)) {
    const numbers = by(user, arrivals);
    times += numbers.filter((n, index) => index > 0 && n < numbers[index - 1]).length;
  }
  return times;
}

/** What a writer has written and nobody has heard, but for what it was told to be given up. */
function unheard({ user, written, unsent }, heard) {
  const numbers = new Set([...by(user, heard), ...unsent.map(({ payload }) => payload.n)]);
  return upTo(written).filter((n) => !numbers.has(n));
}

/** How long it took, each time, from a lost connection until the member was back with all that was sent meanwhile. */
function returnsOf({ away, arrivals }) {
  return away
    .filter(([, to]) => to)
    .map(([from, to]) => {
      const meanwhile = arrivals.filter(({ at, now }) => at > from - 1000 && at <= to && now >= from);
      return Math.max(to, ...meanwhile.map(({ now }) => now)) - from;
    });
}

function quantile(sorted, part) {
  return sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] : "";
}
