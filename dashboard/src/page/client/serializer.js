// The messages of Phoenix Channels, protocol version 2.0.0. Every message on the wire is a JSON array of five elements:
//
//     [join_ref, ref, topic, event, payload]
//
//     >  ["1", "1", "room:lobby", "phx_join", {"name": "Ada"}]                  join a topic
//     <  ["1", "1", "room:lobby", "phx_reply", {"status": "ok", "response": {…}}]
//     >  ["1", "2", "room:lobby", "new_msg", {"body": "hi"}]                    push an event to it
//     <  ["1", "2", "room:lobby", "phx_reply", {"status": "ok", "response": {}}]
//     <  [null, null, "room:lobby", "new_msg", {"body": "hi", …}]               a broadcast to all members
//     >  [null, "3", "phoenix", "heartbeat", {}]                                a heartbeat
//     <  [null, "3", "phoenix", "phx_reply", {"status": "ok", "response": {}}]
//
// `ref` is the client's number of a message; the reply carries the same ref. `join_ref` is the ref of the join, and
// ties a message to that join: after a second join it identifies leftovers of the first.

// Decodes a message from text or from a binary frame. A binary frame has a byte for the kind, a byte for the length of
// each field of this kind, the fields, and the payload. It has no room for a sequence number.
const BINARY_KINDS = [["joinRef", "topic", "event"], ["joinRef", "ref", "topic", "status"], ["topic", "event"]];

export function decode(data) {
  if (typeof data === "string") {
    const [joinRef, ref, topic, event, payload] = JSON.parse(data);
    return { joinRef, ref, topic, event, payload };
  }
  const bytes = new Uint8Array(data);
  const fields = BINARY_KINDS[bytes[0]];
  const message = { joinRef: null, ref: null };
  let at = 1 + fields.length;
  fields.forEach((name, i) => {
    const end = at + bytes[1 + i];
    message[name] = new TextDecoder().decode(bytes.subarray(at, end)) || null;
    at = end;
  });
  const payload = data.slice(at);
  if (message.status === undefined) return { ...message, payload };
  return { ...message, event: "phx_reply", payload: { status: message.status, response: payload } };
}
