use tower_channels_transports::Memory;

use super::*;

#[test]
fn hidden_entries_are_counted_until_they_are_removed() {
    let memory = Memory::new(usize::MAX);
    let store = PresenceStore::new(1 << 20, &memory.account(), None);
    let (owner, topic) = (store.new_owner(), SmolStr::from("lobby"));
    let meta = |size| format!("{{\"text\":\"{}\"}}", "x".repeat(size));
    store.track(owner, &topic, &"a".into(), &meta(100_000)).expect("valid");
    let visible = memory.reserved();
    assert!(store.hide_all(owner, &topic, || true));
    assert_eq!(memory.reserved(), visible);
    store.track(owner, &topic, &"b".into(), &meta(100_000)).expect("valid");
    store.update(owner, &topic, &"a".into(), &meta(200_000)).expect("tracked");
    assert!(memory.reserved() >= 300_000, "{memory:?}");
    assert!(store.show_all(owner, &topic));
    assert!((300_000..320_000).contains(&memory.reserved()), "{memory:?}");
    assert!(store.hide_all(owner, &topic, || true));
    store.untrack(owner, &topic, &"b".into());
    assert!((200_000..220_000).contains(&memory.reserved()), "{memory:?}");
    store.untrack_all(owner, &topic);
    assert_eq!(memory.reserved(), 0);
}
