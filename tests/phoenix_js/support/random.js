/** Returns a generator of numbers below a limit, determined by the seed alone. */
export function random(seed) {
  let state = Math.imul(seed, 2654435761) >>> 0;
  return (limit) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
}
