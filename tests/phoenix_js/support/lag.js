// How far a machine is behind with its work.
import { setTimeout as passing } from "node:timers/promises";

const EVERY_MS = 100;

/**
 * Asks servers for next to nothing, again and again, and measures how long it takes until all but one have answered: one of them
 * may be stopped.
 */
export function measureLag(servers) {
  let askedAt = null;
  let longest = 0;
  let isOver = false;
  const soFar = () => Math.round(Math.max(longest, askedAt ? performance.now() - askedAt : 0));
  const asking = (async () => {
    while (!isOver) {
      askedAt = performance.now();
      await allButOne(servers.map((server) => server.get("/sessions")));
      longest = soFar();
      askedAt = null;
      await passing(EVERY_MS);
    }
  })();
  return {
    /** The longest until now, in ms. */
    longest: soFar,
    stop() {
      isOver = true;
      return asking;
    },
  };
}

/** Resolves when all but one of these have been fulfilled or rejected. */
function allButOne(promises) {
  let left = promises.length - 1;
  return new Promise((resolve) => {
    const settled = () => (left -= 1) === 0 && resolve();
    promises.forEach((promise) => promise.then(settled, settled));
  });
}

/** Measures how late the timers of this process are. Returns the longest until now, in ms, as a function. */
export function measureOwnLag() {
  let dueAt = performance.now() + EVERY_MS;
  let longest = 0;
  const soFar = () => Math.round(Math.max(longest, performance.now() - dueAt));
  const timer = setInterval(() => {
    longest = soFar();
    dueAt = performance.now() + EVERY_MS;
  }, EVERY_MS);
  timer.unref();
  return soFar;
}
