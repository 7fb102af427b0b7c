// Clients that go to the nodes themselves, each time to the next one, as behind a balancer without stickiness. A balancer of this suite
// is one process, which forwards every message and accepts one connection per turn of its event loop: a crowd would wait for it.
import { WebSocket } from "ws";

/** Lets all clients of this process, which may be of any host, go to these hosts in turn. */
export function goTo(hosts) {
  const isIn = hosts.map(() => true);
  let turn = Math.floor(Math.random() * hosts.length);

  function next(url) {
    do turn = (turn + 1) % hosts.length;
    while (isIn.some(Boolean) && !isIn[turn]);
    return Object.assign(new URL(url), { host: hosts[turn] });
  }

  const { fetch } = globalThis; // for long polls
  globalThis.fetch = (url, ...options) => fetch(next(url), ...options);

  return {
    WebSocket: class extends WebSocket {
      constructor(url, ...options) {
        super(next(url), ...options);
      }
    },
    takeOut: (index) => (isIn[index] = false),
    putIn: (index) => (isIn[index] = true),
  };
}
