// The transports. All share one interface: new Transport(path, params), onopen, onmessage(data), onclose(why), send(text),
// sendLast(text) for a page that is being closed, close(), and vanish(), which stops without notifying the server, as
// when a network is lost. `params` is called for the connect parameters; `data` is a string or, for a binary message,
// an ArrayBuffer.

// GET /socket/websocket?vsn=2.0.0&… with an upgrade; after that, each message is a text frame.
export class WebSocketTransport {
  constructor(path, params) {
    const url = new URL(`${path}/websocket?${new URLSearchParams(params())}`, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    this.ws = new WebSocket(url);
    this.ws.binaryType = "arraybuffer";
    this.ws.onopen = () => this.onopen();
    this.ws.onmessage = ({ data }) => this.onmessage(data);
    // Browsers do not reveal the reason: a rejected upgrade looks like a network that is down.
    this.ws.onclose = ({ code }) => this.onclose(code === 1006 ? "no connection" : `closed with ${code}`);
  }

  send(text) {
    this.ws.send(text);
  }

  sendLast(text) {
    if (this.ws.readyState === WebSocket.OPEN) this.ws.send(text);
  }

  close() {
    this.ws.close();
  }

  // The socket ignores it from now on. The server notices when the session continues on another connection.
  vanish() {}
}

// Long poll: the same with plain requests, for networks that block WebSocket.
//
//     >  GET  /socket/longpoll?vsn=2.0.0&…           <  {"status": 410, "token": "A", "messages": []}   a new token
//     >  POST /socket/longpoll?vsn=2.0.0&token=A     <  {"status": 200}                                 messages up
//     >  GET  /socket/longpoll?vsn=2.0.0&token=A     <  {"status": 200, "token": "B", "messages": [text, …]}
//     >  GET  /socket/longpoll?vsn=2.0.0&token=B     <  {"status": 204, "token": "B", "messages": []}   nothing yet
//
// The HTTP status is always 200; the real status is in the body. The server holds a GET until there is a message. The
// token changes with the responses: polling with the newest acknowledges everything before it, and the server resends
// the rest. A message that is not JSON is a binary message in base64.
export class LongPollTransport {
  token = null;
  queue = []; // messages for the next POST
  posting = false;
  aborted = new AbortController();

  constructor(path, params) {
    this.path = path;
    this.params = params;
    this.poll();
  }

  async poll() {
    while (!this.aborted.signal.aborted) {
      const response = await this.request("GET");
      if (response.token) this.token = response.token;
      switch (response.status) {
        case 410: // no or unknown token, and here is a new one: join again
          this.onopen();
          break;
        case 200: // messages, each with the content of a WebSocket frame
          response.messages.forEach((text) => this.onmessage(text.startsWith("[") ? text : fromBase64(text)));
          break;
        case 204: // no messages within the poll timeout: poll again
          break;
        default: // 403: rejected, 500: server error, 0: no response
          return this.end(response.status);
      }
    }
  }

  // One POST at a time keeps messages in order. Messages queued meanwhile share the next one, one per line.
  async send(text) {
    this.queue.push(text);
    if (this.posting) return;
    this.posting = true;
    while (this.queue.length > 0 && !this.aborted.signal.aborted) {
      const response = await this.post();
      if (response.status !== 200) return this.end(response.status);
    }
    this.posting = false;
  }

  // A closed page never sees the response to the POST in flight, so the last one does not wait for it.
  sendLast(text) {
    this.queue.push(text);
    this.post();
  }

  post() {
    return this.request("POST", { "content-type": "application/x-ndjson" }, this.queue.splice(0).join("\n"));
  }

  async request(method, headers, body) {
    const query = new URLSearchParams(this.params());
    if (this.token) query.set("token", this.token);
    try {
      // Closing aborts only the poll: a POST in flight should still arrive.
      const options = { method, headers, body, signal: method === "GET" ? this.aborted.signal : undefined };
      // Lets a final message arrive after its page is closed. Browsers allow at most 64 KiB.
      options.keepalive = body?.length < 8_000;
      return await (await fetch(`${this.path}/longpoll?${query}`, options)).json();
    } catch {
      return { status: 0 };
    }
  }

  // No message ends a long poll: the server expires unused tokens.
  close() {
    this.aborted.abort();
  }

  vanish() {
    this.close();
  }

  end(status) {
    const why = { 0: "no connection", 403: "refused" }[status] ?? `closed with ${status}`;
    if (!this.aborted.signal.aborted) this.onclose(why);
  }
}

const fromBase64 = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;
