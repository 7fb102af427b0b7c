// Where the messages of a phoenix.js `Socket` stand in the histories of their topics. A server that keeps histories sends
// the position of each message, as `EPOCH.NUMBER`, and reads the last one of a topic in its join: what this client has
// missed since follows the reply. Numbers of one epoch grow along a topic.

const POSITION = "phx_position"; // the event of a message that is nothing but a position

export class Positions {
  #socket;
  #last = new Map(); // topic -> the position of the last message, as text

  constructor(socket) {
    this.#socket = socket;
    for (const channel of socket.channels) this.#watch(channel);
    const { channel } = socket;
    socket.channel = (...args) => this.#watch(channel.apply(socket, args));
  }

  /** Forgets a topic that the application leaves. phoenix.js also leaves when a join times out, and not by this method. */
  #watch(channel) {
    const { leave } = channel;
    channel.leave = (...args) => {
      this.#last.delete(channel.topic);
      return leave.apply(channel, args);
    };
    return channel;
  }

  /** Names the last message of a topic in its encoded join. */
  name({ topic, event }, encoded) {
    const after = this.#last.get(topic);
    if (event !== "phx_join" || after === undefined || typeof encoded !== "string") return encoded;
    const named = JSON.stringify({ after });
    if (encoded.endsWith("]")) return `${encoded.slice(0, -1)},${named}]`; // a sixth element
    if (encoded.endsWith("}")) return `${encoded.slice(0, -1)},${named.slice(1)}`; // before `vsn` 2, a field
    return encoded;
  }

  /**
   * Looks at a message that stands at a position, or at none. Returns whether phoenix.js is to have it: unless it came
   * before, or is nothing but a position.
   */
  receive({ topic, event }, position) {
    if (position === undefined) return true;
    const last = this.#last.get(topic);
    if (last !== undefined && isUpTo(position, last)) return false;
    const isJoined = ({ topic: joined, state }) => joined === topic && state !== "leaving" && state !== "closed";
    if (this.#socket.channels.some(isJoined)) this.#last.set(topic, position);
    return event !== POSITION;
  }
}

/** Whether a position is not behind another one. Numbers may be larger than those of JavaScript. */
function isUpTo(position, last) {
  const [[epoch, number], [lastEpoch, lastNumber]] = [position.split("."), last.split(".")];
  if (epoch !== lastEpoch) return false;
  return number.length === lastNumber.length ? number <= lastNumber : number.length < lastNumber.length;
}
