// Promises around the callbacks of phoenix.js.

/** Resolves to `["ok", response]`, `["error", response]` or `["timeout", undefined]` when a push or join ends. */
export function outcome(push) {
  return new Promise((resolve) => {
    for (const status of ["ok", "error", "timeout"]) push.receive(status, (response) => resolve([status, response]));
  });
}

/** Resolves to the response of a push or join, or throws if it fails. */
export async function ok(push) {
  const [status, response] = await outcome(push);
  if (status !== "ok") throw new Error(`expected ok, got ${status} ${JSON.stringify(response)}`);
  return response;
}

/** Resolves to the payload of the next `event`. Call it before causing the event. */
export function next(channel, event) {
  return new Promise((resolve) => {
    const ref = channel.on(event, (payload) => {
      channel.off(event, ref);
      resolve(payload);
    });
  });
}

/** Returns a growing array of all payloads of `event` from now on. */
export function collect(channel, event) {
  const payloads = [];
  channel.on(event, (payload) => payloads.push(payload));
  return payloads;
}

/** Returns a growing array of the events that a socket receives for a topic, with or without a channel for it. */
export function messages(socket, topic) {
  const events = [];
  socket.onMessage((message) => message.topic === topic && events.push(message.event));
  return events;
}

/** Resolves to the argument of the next call of a registered callback: `called((f) => socket.onClose(f))`. */
export const called = (register) => new Promise((resolve) => register(resolve));
