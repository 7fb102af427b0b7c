// A WebSocket in a busy page. The network stack accepts every frame and answers pings at once, while the page handles
// one message at a time; messages still queued when the socket closes are lost. Browsers behave the same way.
import { WebSocket } from "ws";

/** Returns the class. `page.msPerMessage` is how long the page takes to handle each message. */
export const busyWebSocket = (page) =>
  class BusyWebSocket {
    #socket;
    #queue = [];
    #timer = null;
    onopen = () => {};
    onerror = () => {};
    onmessage = () => {};
    onclose = () => {};

    constructor(url) {
      this.#socket = new WebSocket(url);
      this.#socket.binaryType = "arraybuffer";
      this.#socket.onopen = (event) => this.onopen(event);
      this.#socket.onerror = (event) => this.onerror(event);
      this.#socket.onclose = (event) => this.onclose(event);
      this.#socket.onmessage = ({ data }) => {
        if (this.readyState !== WebSocket.OPEN) return; // messages that arrive after `close()` are lost too
        this.#queue.push(data);
        this.#timer ??= setTimeout(() => this.#handleNext(), page.msPerMessage);
      };
    }

    get readyState() {
      return this.#socket.readyState;
    }

    send(data) {
      this.#socket.send(data);
    }

    close(code, reason) {
      this.#queue = [];
      this.#socket.close(code, reason);
    }

    #handleNext() {
      this.#timer = null;
      if (this.#queue.length === 0) return;
      this.onmessage({ data: this.#queue.shift() });
      this.#timer ??= setTimeout(() => this.#handleNext(), page.msPerMessage);
    }
  };
