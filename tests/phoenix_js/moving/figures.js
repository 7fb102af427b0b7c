// Counts what became of what was sent, and how long anyone waited.
import { by, missing, repeated, upTo } from "../continuity/writers.js";

/** How long nobody may be without an answer, or away from the room, where nothing lags. */
export const HUNG_MS = 2000;
/** What any machine is granted beyond every bound. */
const GRANTED_MS = Number(process.env.GRANTED_MS ?? 2000);
/** How often one process waits for another until a client is back on another node: with room to spare. */
const STEPS = 20;

/** A bound on a machine that lags. */
export const within = (ms, lag) => ms + GRANTED_MS + STEPS * lag;

export const COLUMNS = [
  ...["trouble", "clients", "returns", "sent", "due", "lost", "missed", "twice", "again", "order", "unheard", "anew", "recovered", "gaps", "older"],
  ...["answer", "hung", "away", "refused", "left", "back", "p99", "lag"],
];

/** Whether an answer to a join says that the session was begun anew: with nothing missing if it is `recovered`. */
export const isAnew = ({ arrival }) => ["new", "gap", "recovered"].includes(arrival);

/** Messages that a member lacks, and was not told of. */
export const lacks = ({ arrivals, wasToldAfter }, heard) => missing(heard, arrivals).filter(({ at }) => !wasToldAfter(at));

/**
 * What a member has seen, of what was heard in its room. The messages of some users may come in another order. If the nodes
 * were `apart`, and could not ask the store, a session that had begun anew may have given way to an older one, which sends again
 * what the newer one has sent, and has stored less.
 */
export function tally(member, heard, unordered = [], apart = false) {
  const { mode, isHeldToAll, arrivals, away, waits, unpacked, cuts, older } = member;
  // Whoever is cut again begins again.
  const sinceLastCut = (from, to) => to - cuts.reduce((start, cut) => (cut <= to ? Math.max(start, cut) : start), from);
  const told = (...what) => member.told.filter(({ arrival }) => isHeldToAll && what.includes(arrival)).length;
  const mayGoBack = apart && told("new", "gap", "recovered") + older.length > 0;
  const isKept = mode === "kept";
  const lost = isHeldToAll ? lacks(member, heard).length : 0;
  const onConnections = arrivals.map(({ user, n, connection }) => ({ user: `${connection} ${user}`, n }));
  // One that was begun anew does not know what the one before has brought.
  const session = (now) => member.told.filter((join) => isAnew(join) && join.at <= now).length;
  const inSessions = arrivals.map(({ user, n, now }) => ({ user: `${session(now)} ${user}`, n }));
  return {
    name: String(member),
    due: isHeldToAll ? heard.length : 0,
    lost,
    missed: isHeldToAll ? missing(heard, arrivals).length - lost : 0,
    twice: isKept && !mayGoBack ? repeated(inSessions).length : 0,
    again: isHeldToAll ? repeated(arrivals).length : 0,
    order: isKept ? disorder(arrivals, unordered) : 0,
    onOneConnection: repeated(onConnections).length,
    unheard: unheard(member, heard).length,
    unpacked: isHeldToAll && !mayGoBack ? unpacked : 0,
    anew: told("new", "gap"),
    recovered: told("recovered"),
    gaps: told("moved_gap"),
    older: isHeldToAll ? older.length : 0,
    answers: waits.filter(({ status }) => status !== "interrupted").map(({ at, ms }) => sinceLastCut(at, at + ms)),
    absences: away.map(([from, to = Date.now()]) => sinceLastCut(from, to)),
    returns: isHeldToAll ? returnsOf(member) : [],
  };
}

/** A row of the table. `lag` is the longest that the machine was behind, and `apartMs` how long the nodes were apart. */
export function total(tallies, lag, apartMs = 0) {
  const sum = (what) => tallies.reduce((total, tally) => total + tally[what], 0);
  const [answers, absences, returns] = ["answers", "absences", "returns"].map((what) => tallies.flatMap((tally) => tally[what]));
  const tooLong = (ms) => ms > within(HUNG_MS + apartMs, lag);
  const sums = ["due", "lost", "missed", "twice", "again", "order", "onOneConnection", "unheard", "unpacked", "anew", "recovered", "gaps", "older"];
  return {
    clients: tallies.length,
    lag,
    ...Object.fromEntries(sums.map((what) => [what, sum(what)])),
    answer: longest(answers),
    hung: answers.filter(tooLong).length + absences.filter(tooLong).length,
    away: longest(absences),
    returns: absences.length,
    back: quantile(returns, 0.5),
    p99: quantile(returns, 0.99),
  };
}

/** A line for each member that lacks something, has something twice, has begun a session anew or had to wait. */
export function oddities(tallies) {
  return tallies.flatMap(({ name, lost, missed, twice, order, unheard, unpacked, anew, recovered, gaps, older, answers, absences }) => {
    const waits = Object.entries({ answer: longest(answers), away: longest(absences) }).filter(([, ms]) => ms > HUNG_MS);
    const counts = Object.entries({ lost, missed, twice, order, unheard, unpacked, anew, recovered, gaps, older }).filter(([, count]) => count > 0);
    const odd = [...counts, ...waits].map(([what, number]) => `${number} ${what}`);
    return odd.length ? [`${name}: ${odd.join(", ")}`] : [];
  });
}

/** How often a message of a user came after a later one. */
function disorder(arrivals, unordered) {
  const last = new Map();
  let times = 0;
  for (const { user, n } of arrivals) {
    if (n < last.get(user) && !unordered.includes(user)) times += 1;
    last.set(user, n);
  }
  return times;
}

/**
 * What a writer has written and nobody has heard, although it was answered that it is kept; or, with `keepSession`, although it was
 * neither refused nor reported, and its session has not begun anew. A session that ends with its node takes along what was not answered.
 */
function unheard({ mode, user, written = 0, outcomes = new Map(), unsent, told }, heard) {
  const numbers = new Set(by(user, heard));
  const isReported = new Set(unsent.map(({ payload }) => payload.n));
  const mayBeLost = mode !== "kept" || told.some(isAnew);
  const isDue = (n) => outcomes.get(n) === "ok" || !(mayBeLost || outcomes.has(n) || isReported.has(n));
  return upTo(written).filter((n) => isDue(n) && !numbers.has(n));
}

/** How long it took, each time, from a lost connection until the member was back with all that was sent meanwhile. */
function returnsOf({ away, arrivals }) {
  return away
    .filter(([, to]) => to)
    .map(([from, to]) => {
      const meanwhile = arrivals.filter(({ at, now }) => at > from - 1000 && at <= to && now >= from);
      return longest([to, ...meanwhile.map(({ now }) => now)]) - from;
    });
}

const longest = (times) => times.reduce((one, other) => Math.max(one, other), 0);

function quantile(values, part) {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? "";
}
