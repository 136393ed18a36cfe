//! What every engine must do, as functions over [`Kv`]. Each case works under a prefix of its own and assumes no more of the
//! revision than that it grows, so that the cases may share one store.

use super::{delete, entry, expect_events, get, list, next, put, range, watch};
use bytes::Bytes;
use futures::future::BoxFuture;
use store::kv::{Compare, Kv, Op, Range, StoreError, Txn, TxnResult, WatchItem};

pub(crate) type Case = for<'a> fn(&'a dyn Kv) -> BoxFuture<'a, ()>;

/// All cases, by name.
pub(crate) static CASES: &[(&str, Case)] = &[
    ("create_and_get", |kv| Box::pin(create_and_get(kv))),
    ("update_keeps_create_revision", |kv| Box::pin(update_keeps_create_revision(kv))),
    ("delete_and_create_again", |kv| Box::pin(delete_and_create_again(kv))),
    ("compare_failed", |kv| Box::pin(compare_failed(kv))),
    ("txn_is_one_revision", |kv| Box::pin(txn_is_one_revision(kv))),
    ("nothing_changed_no_revision", |kv| Box::pin(nothing_changed_no_revision(kv))),
    ("duplicate_key_refused", |kv| Box::pin(duplicate_key_refused(kv))),
    ("too_large_refused", |kv| Box::pin(too_large_refused(kv))),
    ("range_pages", |kv| Box::pin(range_pages(kv))),
    ("range_at_revision", |kv| Box::pin(range_at_revision(kv))),
    ("range_in_future", |kv| Box::pin(range_in_future(kv))),
    ("range_backwards_is_empty", |kv| Box::pin(range_backwards_is_empty(kv))),
    ("watch_live", |kv| Box::pin(watch_live(kv))),
    ("watch_from_past", |kv| Box::pin(watch_from_past(kv))),
    ("watch_from_future", |kv| Box::pin(watch_from_future(kv))),
    ("watch_whole_transactions", |kv| Box::pin(watch_whole_transactions(kv))),
    ("watch_many_in_order", |kv| Box::pin(watch_many_in_order(kv))),
    ("watch_progress_when_asked", |kv| Box::pin(watch_progress_when_asked(kv))),
    ("concurrent_increments", |kv| Box::pin(concurrent_increments(kv))),
    ("lease_expires", |kv| Box::pin(lease_expires(kv))),
    ("lease_ends_with_put", |kv| Box::pin(lease_ends_with_put(kv))),
    // Last: it takes the others' history.
    ("compaction", |kv| Box::pin(compaction(kv))),
];

async fn create_and_get(kv: &dyn Kv) {
    let revision = put(kv, "/create/a", "1").await;
    assert_eq!(get(kv, "/create/a").await, Some(entry("/create/a", "1", revision, revision)));
    assert_eq!(get(kv, "/create/").await, None);
    assert_eq!(get(kv, "/create/aa").await, None);
    assert!(kv.revision().await.unwrap() >= revision);
}

async fn update_keeps_create_revision(kv: &dyn Kv) {
    let first = put(kv, "/update/a", "1").await;
    let second = put(kv, "/update/a", "2").await;
    assert!(second > first);
    assert_eq!(get(kv, "/update/a").await, Some(entry("/update/a", "2", first, second)));
}

async fn delete_and_create_again(kv: &dyn Kv) {
    put(kv, "/again/a", "1").await;
    delete(kv, "/again/a").await;
    assert_eq!(get(kv, "/again/a").await, None);
    let revision = put(kv, "/again/a", "2").await;
    assert_eq!(get(kv, "/again/a").await, Some(entry("/again/a", "2", revision, revision)));
}

async fn compare_failed(kv: &dyn Kv) {
    let revision = put(kv, "/compare/a", "1").await;
    let compares = vec![
        Compare::ModRevision { key: "/compare/a".into(), revision: 0 },
        Compare::ModRevision { key: "/compare/none".into(), revision: 0 },
    ];
    let op = Op::Put { key: "/compare/a".into(), value: Bytes::from_static(b"2"), ttl_s: None };
    let result = kv.txn(Txn { compares: compares.clone(), ops: vec![op.clone()] }).await.unwrap();
    let TxnResult::Conflict { current, revision: at } = result else { panic!("{result:?}") };
    assert_eq!(current, [Some(entry("/compare/a", "1", revision, revision)), None]);
    assert!(at >= revision);
    assert_eq!(get(kv, "/compare/a").await, Some(entry("/compare/a", "1", revision, revision)));

    let compares = vec![Compare::ModRevision { key: "/compare/a".into(), revision }];
    let result = kv.txn(Txn { compares: compares.clone(), ops: vec![op.clone()] }).await.unwrap();
    assert!(matches!(result, TxnResult::Committed { .. }), "{result:?}");
    // The same again has been overtaken by itself.
    let result = kv.txn(Txn { compares, ops: vec![op] }).await.unwrap();
    assert!(matches!(result, TxnResult::Conflict { .. }), "{result:?}");
}

async fn txn_is_one_revision(kv: &dyn Kv) {
    put(kv, "/txn/gone", "1").await;
    let ops = vec![
        Op::Put { key: "/txn/a".into(), value: Bytes::from_static(b"a"), ttl_s: None },
        Op::Delete { key: "/txn/gone".into() },
        Op::Put { key: "/txn/b".into(), value: Bytes::new(), ttl_s: None },
    ];
    let TxnResult::Committed { revision } = kv.txn(Txn { compares: vec![], ops }).await.unwrap() else { panic!() };
    assert_eq!(
        list(kv, "/txn/", 0).await,
        [entry("/txn/a", "a", revision, revision), entry("/txn/b", "", revision, revision)]
    );
}

async fn nothing_changed_no_revision(kv: &dyn Kv) {
    let revision = put(kv, "/nothing/a", "1").await;
    assert_eq!(kv.txn(Txn::default()).await.unwrap(), TxnResult::Committed { revision });
    assert_eq!(delete(kv, "/nothing/none").await, revision);
    assert_eq!(kv.revision().await.unwrap(), revision);
}

async fn duplicate_key_refused(kv: &dyn Kv) {
    let op = Op::Put { key: "/duplicate".into(), value: Bytes::new(), ttl_s: None };
    let error = kv.txn(Txn { compares: vec![], ops: vec![op.clone(), op] }).await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid(_)), "{error}");
    assert_eq!(get(kv, "/duplicate").await, None);
}

async fn too_large_refused(kv: &dyn Kv) {
    let op = Op::Put { key: "/large".into(), value: Bytes::from(vec![b'x'; 16 << 20]), ttl_s: None };
    let error = kv.txn(Txn { compares: vec![], ops: vec![op] }).await.unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { .. }), "{error}");
    let value = "x".repeat(1 << 20);
    put(kv, "/large", &value).await;
    assert_eq!(get(kv, "/large").await.unwrap().value, value);
}

async fn range_pages(kv: &dyn Kv) {
    for number in 0..10 {
        put(kv, &format!("/pages/{number}"), "x").await;
    }
    put(kv, "/pages0", "behind").await;
    let mut seen = Vec::new();
    let mut start = "/pages/".to_owned();
    let mut revision = 0;
    loop {
        let page = Range { start: start.as_str().into(), end: "/pages0".into(), revision, limit: 4 };
        let page = kv.range(page).await.unwrap();
        if revision == 0 {
            revision = page.revision;
            // The pages to come are not touched by this.
            put(kv, "/pages/5", "changed").await;
            put(kv, "/pages/55", "new").await;
            delete(kv, "/pages/7").await;
        }
        start = format!("{}\0", page.entries.last().unwrap().key);
        seen.extend(page.entries.iter().map(|entry| (entry.key.to_string(), entry.value.clone())));
        assert_eq!(page.remaining, 10 - seen.len());
        if page.remaining == 0 {
            break;
        }
    }
    let expected: Vec<_> = (0..10).map(|number| (format!("/pages/{number}"), Bytes::from_static(b"x"))).collect();
    assert_eq!(seen, expected);
}

async fn range_at_revision(kv: &dyn Kv) {
    let first = put(kv, "/at/a", "1").await;
    let second = put(kv, "/at/a", "2").await;
    let third = put(kv, "/at/b", "1").await;
    let fourth = delete(kv, "/at/a").await;
    let fifth = put(kv, "/at/a", "3").await;
    assert_eq!(list(kv, "/at/", first - 1).await, []);
    assert_eq!(list(kv, "/at/", first).await, [entry("/at/a", "1", first, first)]);
    assert_eq!(list(kv, "/at/", second).await, [entry("/at/a", "2", first, second)]);
    let b = entry("/at/b", "1", third, third);
    assert_eq!(list(kv, "/at/", third).await, [entry("/at/a", "2", first, second), b.clone()]);
    assert_eq!(list(kv, "/at/", fourth).await, std::slice::from_ref(&b));
    assert_eq!(list(kv, "/at/", fifth).await, [entry("/at/a", "3", fifth, fifth), b]);
}

async fn range_in_future(kv: &dyn Kv) {
    let current = put(kv, "/future/a", "1").await;
    let error = kv.range(range("/future/", current + 10)).await.unwrap_err();
    assert_eq!(error, StoreError::FutureRevision { wanted: current + 10, current });
}

async fn range_backwards_is_empty(kv: &dyn Kv) {
    put(kv, "/back/a", "1").await;
    let result = kv.range(Range { start: "/back/b".into(), end: "/back/a".into(), revision: 0, limit: 0 }).await;
    assert_eq!(result.unwrap().entries, []);
}

async fn watch_live(kv: &dyn Kv) {
    let start = kv.revision().await.unwrap() + 1;
    let mut stream = watch(kv, "/live/", start).await;
    let first = put(kv, "/live/a", "1").await;
    put(kv, "/other", "not seen").await;
    let second = put(kv, "/live/a", "2").await;
    let third = delete(kv, "/live/a").await;
    let events = expect_events(&mut stream, 3).await;
    let seen: Vec<_> = events.iter().map(|event| (event.revision, event.value.clone())).collect();
    assert_eq!(seen, [(first, Some("1".into())), (second, Some("2".into())), (third, None)]);
    let previous: Vec<_> = events.into_iter().map(|event| event.previous).collect();
    assert_eq!(previous, [None, Some(entry("/live/a", "1", first, first)), Some(entry("/live/a", "2", first, second))]);
}

async fn watch_from_past(kv: &dyn Kv) {
    let first = put(kv, "/past/a", "1").await;
    put(kv, "/past/b", "1").await;
    delete(kv, "/past/a").await;
    put(kv, "/past/a", "2").await;
    // Push them out of whatever is remembered of the newest.
    for number in 0..20 {
        put(kv, "/filler", &format!("{number}").repeat(50_000)).await;
    }
    let mut stream = watch(kv, "/past/", first).await;
    put(kv, "/past/c", "1").await;
    let events = expect_events(&mut stream, 5).await;
    let seen: Vec<_> = events.iter().map(|event| (event.key.as_ref(), event.value.as_deref())).collect();
    let one = Some(b"1".as_slice());
    assert_eq!(
        seen,
        [("/past/a", one), ("/past/b", one), ("/past/a", None), ("/past/a", Some(b"2")), ("/past/c", one)]
    );
    assert_eq!(events[2].previous, Some(entry("/past/a", "1", first, first)));
    assert_eq!(events[3].previous, None);

    let mut stream = watch(kv, "/past/", first + 1).await;
    let events = expect_events(&mut stream, 4).await;
    assert_eq!(events[0].key.as_ref(), "/past/b");
}

async fn watch_from_future(kv: &dyn Kv) {
    let revision = kv.revision().await.unwrap();
    let mut stream = watch(kv, "/tomorrow/", revision + 2).await;
    put(kv, "/tomorrow/a", "too early").await;
    let second = put(kv, "/tomorrow/a", "2").await;
    let events = expect_events(&mut stream, 1).await;
    assert_eq!(events[0].revision, second);
}

async fn watch_whole_transactions(kv: &dyn Kv) {
    let start = kv.revision().await.unwrap() + 1;
    for round in 0..5 {
        let value = Bytes::from(round.to_string());
        let ops = (0..300).map(|n| Op::Put { key: format!("/whole/{n:03}").into(), value: value.clone(), ttl_s: None });
        kv.txn(Txn { compares: vec![], ops: ops.collect() }).await.unwrap();
    }
    let mut stream = watch(kv, "/whole/", start).await;
    let mut count = 0;
    while count < 1500 {
        if let WatchItem::Events(events) = next(&mut stream).await.unwrap() {
            assert_eq!(events.len() % 300, 0, "a transaction was cut");
            count += events.len();
        }
    }
}

async fn watch_many_in_order(kv: &dyn Kv) {
    let start = kv.revision().await.unwrap() + 1;
    let mut streams = Vec::new();
    for _ in 0..10 {
        streams.push(watch(kv, "/many/", start).await);
    }
    let writes = (0..8).map(|writer| async move {
        for number in 0..50 {
            put(kv, &format!("/many/{writer}"), &number.to_string()).await;
        }
    });
    futures::future::join_all(writes).await;
    let mut first = None;
    for stream in &mut streams {
        let events = expect_events(stream, 400).await;
        assert!(events.is_sorted_by(|a, b| a.revision < b.revision));
        let first = first.get_or_insert_with(|| events.clone());
        assert_eq!(*first, events);
    }
}

async fn watch_progress_when_asked(kv: &dyn Kv) {
    let start = kv.revision().await.unwrap() + 1;
    let mut stream = watch(kv, "/progress/", start).await;
    let written = put(kv, "/elsewhere", "1").await;
    assert!(kv.revision().await.unwrap() >= written);
    loop {
        match next(&mut stream).await.unwrap() {
            WatchItem::Progress(revision) if revision >= written => break,
            WatchItem::Progress(_) => {}
            WatchItem::Events(events) => panic!("{events:?}"),
        }
    }
}

async fn concurrent_increments(kv: &dyn Kv) {
    put(kv, "/counter", "0").await;
    let writers = (0..8).map(|_| async move {
        for _ in 0..20 {
            loop {
                let before = get(kv, "/counter").await.unwrap();
                let count: u64 = std::str::from_utf8(&before.value).unwrap().parse().unwrap();
                let compare = Compare::ModRevision { key: before.key.clone(), revision: before.mod_revision };
                let op = Op::Put { key: before.key, value: (count + 1).to_string().into(), ttl_s: None };
                let txn = Txn { compares: vec![compare], ops: vec![op] };
                if matches!(kv.txn(txn).await.unwrap(), TxnResult::Committed { .. }) {
                    break;
                }
            }
        }
    });
    futures::future::join_all(writers).await;
    assert_eq!(get(kv, "/counter").await.unwrap().value, "160");
}

async fn lease_expires(kv: &dyn Kv) {
    let start = kv.revision().await.unwrap() + 1;
    let mut stream = watch(kv, "/lease/", start).await;
    let op = Op::Put { key: "/lease/a".into(), value: Bytes::from_static(b"1"), ttl_s: Some(1) };
    kv.txn(Txn { compares: vec![], ops: vec![op] }).await.unwrap();
    let events = expect_events(&mut stream, 2).await;
    assert_eq!(events[1].value, None);
    assert_eq!(events[1].previous.as_ref().map(|entry| &entry.value[..]), Some(&b"1"[..]));
    assert_eq!(get(kv, "/lease/a").await, None);
}

async fn lease_ends_with_put(kv: &dyn Kv) {
    let start = kv.revision().await.unwrap() + 1;
    let mut stream = watch(kv, "/keep/", start).await;
    for key in ["/keep/a", "/keep/b"] {
        let op = Op::Put { key: key.into(), value: Bytes::from_static(b"1"), ttl_s: Some(1) };
        kv.txn(Txn { compares: vec![], ops: vec![op] }).await.unwrap();
    }
    put(kv, "/keep/a", "stays").await;
    // The other one's end shows that the time has come.
    let events = expect_events(&mut stream, 4).await;
    assert_eq!((events[3].key.as_ref(), &events[3].value), ("/keep/b", &None));
    assert_eq!(get(kv, "/keep/a").await.unwrap().value, "stays");
}

async fn compaction(kv: &dyn Kv) {
    let first = put(kv, "/compact/a", "1").await;
    put(kv, "/compact/b", "1").await;
    let second = put(kv, "/compact/a", "2").await;
    let third = put(kv, "/compact/a", "3").await;
    let gone = delete(kv, "/compact/b").await;
    kv.compact(second).await.unwrap();
    let compacted = StoreError::Compacted { oldest: second };
    assert_eq!(kv.range(range("/compact/", first)).await.unwrap_err(), compacted);
    assert_eq!(kv.watch("/compact/", first).await.err(), Some(compacted.clone()));
    assert_eq!(kv.compact(second).await.unwrap_err(), compacted);
    let error = kv.compact(gone + 10).await.unwrap_err();
    assert!(matches!(error, StoreError::FutureRevision { .. }), "{error}");
    // What was current then is still there.
    let values: Vec<_> = list(kv, "/compact/", second).await.into_iter().map(|entry| entry.value).collect();
    assert_eq!(values, ["2", "1"]);
    let values: Vec<_> = list(kv, "/compact/", third).await.into_iter().map(|entry| entry.value).collect();
    assert_eq!(values, ["3", "1"]);
    let mut stream = watch(kv, "/compact/", second).await;
    let events = expect_events(&mut stream, 3).await;
    let seen: Vec<_> = events.iter().map(|event| (event.key.as_ref(), event.value.as_deref())).collect();
    assert_eq!(seen, [("/compact/a", Some(&b"2"[..])), ("/compact/a", Some(b"3")), ("/compact/b", None)]);
    kv.compact(gone).await.unwrap();
    let values: Vec<_> = list(kv, "/compact/", gone).await.into_iter().map(|entry| entry.value).collect();
    assert_eq!(values, ["3"]);
    assert_eq!(list(kv, "/compact/", 0).await.len(), 1);
}
