// Tracks who is present on a topic, from the two presence events of the server:
//
//     <  [null, null, "room:lobby", "presence_state", {"Ada": {"metas": [{"phx_ref": "F7…", "typing": false, …}]}, …}]
//     <  [null, null, "room:lobby", "presence_diff", {"joins": {"Bob": {"metas": [{…}]}}, "leaves": {…}}]
//
// The state comes first, after every join; the diffs build on it. A key, here a person's name, is present as long as
// it has metas, one per tab. A meta is identified by its `phx_ref`: when a meta changes, the old one leaves and the new
// one joins.
//
// This is the subset of `Presence` from the `phoenix` package that the page needs; the original is a drop-in
// replacement.

export class Presence {
  #present = null; // key -> { metas }
  #sync = () => {};

  constructor(channel) {
    channel
      .on("presence_state", (state) => {
        this.#present = new Map(Object.entries(state));
        this.#sync();
      })
      .on("presence_diff", ({ joins, leaves }) => {
        if (this.#present === null) return; // the pending state will include it
        for (const [key, { metas }] of Object.entries(joins)) this.#change(key, metas, metas);
        for (const [key, { metas }] of Object.entries(leaves)) this.#change(key, metas, []);
        this.#sync();
      });
  }

  // Sets a callback that runs whenever the list may have changed.
  onSync(callback) {
    this.#sync = callback;
  }

  // Maps every entry with by(key, { metas }).
  list(by) {
    return [...(this.#present ?? [])].map(([key, presence]) => by(key, presence));
  }

  // Removes the old metas of a key and adds the new ones.
  #change(key, old, added) {
    const removed = new Set(old.map((meta) => meta.phx_ref));
    const rest = (this.#present.get(key)?.metas ?? []).filter((meta) => !removed.has(meta.phx_ref));
    const metas = [...rest, ...added];
    if (metas.length > 0) this.#present.set(key, { metas });
    else this.#present.delete(key);
  }
}
