// A bad network to try: what the pages of the examples offer, and a Socket does to itself on request.

// Simulates a WebSocket in a network that blocks them.
export class BlockedTransport {
  constructor() {
    this.timer = setTimeout(() => this.onclose("WebSocket is blocked"), 100);
  }

  send() {}

  sendLast() {}

  close() {
    clearTimeout(this.timer);
  }
}

// Lets actions pass after a delay, in order.
export class DelayLine {
  #waiting = []; // { due, action }

  pass(ms, action) {
    if (ms === 0 && this.#waiting.length === 0) return action();
    this.#waiting.push({ due: performance.now() + ms, action });
    setTimeout(() => this.#release(), ms);
  }

  #release() {
    const now = performance.now() + 1; // timers may be early by a fraction
    while (this.#waiting[0]?.due <= now) this.#waiting.shift().action();
  }
}
