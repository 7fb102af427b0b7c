// phoenix.js speaks in callbacks; tests read better with promises.

/** How a push or join ended: `["ok", response]`, `["error", response]` or `["timeout", undefined]`. */
export function outcome(push) {
  return new Promise((resolve) => {
    for (const status of ["ok", "error", "timeout"]) push.receive(status, (response) => resolve([status, response]));
  });
}

/** The response of a push or join that succeeds. */
export async function ok(push) {
  const [status, response] = await outcome(push);
  if (status !== "ok") throw new Error(`expected ok, got ${status} ${JSON.stringify(response)}`);
  return response;
}

/** The payload of the next `event`. Ask before you cause it. */
export function next(channel, event) {
  return new Promise((resolve) => {
    const ref = channel.on(event, (payload) => {
      channel.off(event, ref);
      resolve(payload);
    });
  });
}

/** All payloads of `event` from now on, in an array that grows. */
export function collect(channel, event) {
  const payloads = [];
  channel.on(event, (payload) => payloads.push(payload));
  return payloads;
}

/** The events that arrive at a socket for a topic from now on, whether it has a channel for them or not. */
export function messages(socket, topic) {
  const events = [];
  socket.onMessage((message) => message.topic === topic && events.push(message.event));
  return events;
}

/** The argument of the next call of a callback that `register` takes: `called((f) => socket.onClose(f))`. */
export const called = (register) => new Promise((resolve) => register(resolve));
