// What writers write, and what became of it.

const WRITE_EVERY_MS = 20;
const ASK_EVERY = 5; // messages
const PUSH_TIMEOUT_MS = 60_000; // longer than any absence, so that nothing is given up

/**
 * Lets a member write until the returned function is called. Some messages are questions. The messages with the event `publish` are
 * answered.
 */
export function write(writer, everyMs = WRITE_EVERY_MS, event = "new_msg") {
  writer.written = 0;
  writer.answers = [];
  writer.outcomes = new Map(); // of the messages that were answered
  const timer = setInterval(() => {
    const n = (writer.written += 1);
    const push = writer.room.push(event, { user: writer.user, n, at: Date.now() }, PUSH_TIMEOUT_MS);
    for (const status of ["ok", "error"]) push.receive(status, () => writer.outcomes.set(n, status));
    if (n % ASK_EVERY === 0) writer.answers.push(writer.ask(PUSH_TIMEOUT_MS));
  }, everyMs);
  return () => clearInterval(timer);
}

const name = ({ user, n }) => `${user} ${n}`;

/** The numbers of the messages of one user, in the order in which they came. */
export const by = (user, messages) => messages.filter((message) => message.user === user).map(({ n }) => n);

/** Messages that were heard, and not received. */
export function missing(heard, received) {
  const names = new Set(received.map(name));
  return heard.filter((message) => !names.has(name(message)));
}

/** Messages that had come before. */
export function repeated(messages) {
  const names = new Set();
  return messages.filter((message) => names.size === names.add(name(message)).size);
}

export const upTo = (last) => Array.from({ length: last }, (_, index) => index + 1);
