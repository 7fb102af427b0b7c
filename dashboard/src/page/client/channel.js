// A topic of a socket, and what its pushes end with.

// Exponential backoff with jitter, so that clients cut off by one restart do not return all at once.
export const backoff = (failures) => Math.min(250 * 2 ** failures, 8_000) * (0.5 + Math.random() / 2);

// Why a push failed. `kind` is "refused" (an error reply, whose reason is the message, and `response` the whole),
// "timeout" (no reply in time) or "lost" (the connection or the channel is gone; the push may or may not have arrived).
export class PushError extends Error {
  constructor(kind, reason, response = null) {
    super(reason);
    this.kind = kind;
    this.response = response;
  }
}

// One topic. From `join` to `leave`, it rejoins after every lost connection and every channel error (`phx_error`).
export class Channel {
  state = "closed"; // closed, waiting (for the connection or a retry), joining, or joined
  onjoin = () => {}; // (response) after every join
  onrefused = () => {}; // (PushError) when the server rejects a join; there is no retry
  onchange = () => {};

  #socket;
  #payload;
  #joinRef = null;
  #position = null; // of the newest message, in the history of the topic
  #events = new Map(); // event -> handler
  #failures = 0;
  #timer;

  constructor(socket, topic, payload) {
    this.#socket = socket;
    this.topic = topic;
    this.#payload = payload;
  }

  // The ref of the current join; null before the first.
  joinRef() {
    return this.#joinRef;
  }

  // Where the newest message stands in the history of the topic; null without one.
  position() {
    return this.#position;
  }

  on(event, handler) {
    this.#events.set(event, handler);
    return this;
  }

  join() {
    this.#setState("waiting");
    if (this.#socket.state === "open") this._socketOpened();
  }

  leave() {
    clearTimeout(this.#timer);
    const active = this.state === "joining" || this.state === "joined";
    if (active) this.#socket._send(this.#joinRef, this.topic, "phx_leave", {});
    this.#setState("closed");
    this.#socket._forget(this);
  }

  // Pushes an event and returns a promise of its reply. Rejects with a PushError.
  push(event, payload) {
    return new Promise((resolve, reject) => {
      if (this.state !== "joined") throw new PushError("lost", "not joined");
      this.#socket._send(this.#joinRef, this.topic, event, payload, (error, response) =>
        error ? reject(error) : resolve(response),
      );
    });
  }

  // Pushes an event without expecting a reply. Does nothing unless the channel is joined.
  send(event, payload) {
    if (this.state === "joined") this.#socket._send(this.#joinRef, this.topic, event, payload);
  }

  _socketOpened() {
    if (this.state === "closed") return;
    clearTimeout(this.#timer);
    this.#setState("joining");
    const ref = this.#socket._send(null, this.topic, "phx_join", this.#payload(), (error, response) => {
      if (this.#joinRef !== ref || this.state !== "joining") return; // an older join, or the channel was left
      if (!error) {
        this.#failures = 0;
        if (!response.resumed) this.#socket._abandon(this.topic); // a new channel will not reply to old pushes
        this.#setState("joined");
        this.onjoin(response);
      } else if (error.kind === "refused") {
        this.#setState("closed");
        this.#socket._forget(this);
        this.onrefused(error);
      } else if (error.kind === "timeout") {
        this.#rejoinLater();
      }
    });
    this.#joinRef = ref;
  }

  // Remembers a position. Returns false if it is not a new one: numbers of one epoch grow.
  _moveTo(position) {
    const [epoch, number] = position.split(".");
    const [lastEpoch, last] = (this.#position ?? "").split(".");
    if (epoch === lastEpoch && BigInt(number) <= BigInt(last)) return false;
    this.#position = position;
    return true;
  }

  _socketLost() {
    if (this.state === "closed") return;
    clearTimeout(this.#timer);
    this.#setState("waiting");
  }

  // Broadcasts are encoded once for all members and have a null join_ref. Any other join_ref must be ours.
  _received(joinRef, event, payload) {
    if (joinRef !== null && joinRef !== this.#joinRef) return;
    if (event === "phx_error" || event === "phx_close") this.#rejoinLater();
    else this.#events.get(event)?.(payload);
  }

  // The channel ended on the server, not the connection: pending pushes fail, and the channel rejoins after a delay.
  #rejoinLater() {
    this.#setState("waiting");
    this.#socket._abandon(this.topic);
    this.#timer = setTimeout(() => {
      if (this.#socket.state === "open") this._socketOpened();
    }, backoff(this.#failures++));
  }

  #setState(state) {
    this.state = state;
    this.onchange();
  }
}
