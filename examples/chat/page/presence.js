// Who is present on a topic, out of the two events in which the server says so:
//
//     <  [null, null, "room:lobby", "presence_state", {"Ada": {"metas": [{"phx_ref": "F7…", "typing": false, …}]}, …}]
//     <  [null, null, "room:lobby", "presence_diff", {"joins": {"Bob": {"metas": [{…}]}}, "leaves": {…}}]
//
// First comes the state, after every join; the diffs build on it. A key, here a person's name, is present as long as it
// has metas, one for each tab. A meta is named by its `phx_ref`: of one that was changed, the old one leaves and the
// new one joins.
//
// This is what this page needs of `Presence` in the `phoenix` package, which can stand in its place as it is.

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
        if (this.#present === null) return; // the state that is to come knows of it
        for (const [key, { metas }] of Object.entries(joins)) this.#change(key, metas, metas);
        for (const [key, { metas }] of Object.entries(leaves)) this.#change(key, metas, []);
        this.#sync();
      });
  }

  // `callback` is called whenever the list may have changed.
  onSync(callback) {
    this.#sync = callback;
  }

  // What `by` makes of everybody: by(key, { metas }).
  list(by) {
    return [...(this.#present ?? [])].map(([key, presence]) => by(key, presence));
  }

  // Takes the old metas of a key out, and adds the new ones.
  #change(key, old, added) {
    const gone = new Set(old.map((meta) => meta.phx_ref));
    const kept = (this.#present.get(key)?.metas ?? []).filter((meta) => !gone.has(meta.phx_ref));
    const metas = [...kept, ...added];
    if (metas.length > 0) this.#present.set(key, { metas });
    else this.#present.delete(key);
  }
}
