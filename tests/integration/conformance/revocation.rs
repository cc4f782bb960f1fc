//! The promises of the list of those who are shut out, for whoever keeps it.

use std::collections::{HashMap, HashSet};

use tidings::model::{UserId, now_ms};
use tidings::revocation::{Change, Revocations, Revoked};

use crate::conformance::{Backend, for_each_backend};
use crate::support::wait_until;

for_each_backend!(a cluster too:
    what_is_shut_out_is_on_the_list_until_it_is_let_in,
    a_token_is_forgotten_after_its_time_and_not_before,
    the_number_changes_with_each_change_and_the_list_outlives_its_node,
);

fn user(name: &str) -> UserId {
    UserId::parse(name).expect("a user")
}

async fn apply(list: &dyn Revocations, change: Change) -> bool {
    let known = list.version().await.expect("a version");
    list.apply(change, known).await.expect("applied")
}

async fn what_is_shut_out_is_on_the_list_until_it_is_let_in(backend: &dyn Backend) {
    let node = backend.start().await;
    let list = backend.revocations(&node);
    assert_eq!(list.load().await.expect("loaded"), Revoked::default());
    assert!(!apply(&*list, Change::Unblock(user("ann"))).await);
    assert!(apply(&*list, Change::Block(user("ann"))).await);
    assert!(!apply(&*list, Change::Block(user("ann"))).await, "again changes nothing");
    assert!(apply(&*list, Change::Block(user("bob"))).await);
    let until = now_ms() + 60_000;
    assert!(apply(&*list, Change::Revoke("a token/1".to_owned(), until)).await);
    let expected = Revoked {
        users: HashSet::from([user("ann"), user("bob")]),
        tokens: HashMap::from([("a token/1".to_owned(), until)]),
    };
    assert_eq!(list.load().await.expect("loaded"), expected);
    assert!(apply(&*list, Change::Unblock(user("ann"))).await);
    let revoked = list.load().await.expect("loaded");
    assert_eq!(revoked.users, HashSet::from([user("bob")]));
}

async fn a_token_is_forgotten_after_its_time_and_not_before(backend: &dyn Backend) {
    let node = backend.start().await;
    let list = backend.revocations(&node);
    assert!(!apply(&*list, Change::Revoke("past".to_owned(), now_ms() - 1)).await);
    let (soon, later) = (now_ms() + 300, now_ms() + 60_000);
    assert!(apply(&*list, Change::Revoke("soon".to_owned(), soon)).await);
    assert!(apply(&*list, Change::Revoke("longer".to_owned(), soon)).await);
    assert!(apply(&*list, Change::Revoke("longer".to_owned(), later)).await, "a later end counts");
    assert!(!apply(&*list, Change::Revoke("longer".to_owned(), soon)).await, "an earlier one does not");
    wait_until("one is forgotten", async || {
        let asked = now_ms();
        let tokens = list.load().await.expect("loaded").tokens;
        assert!(tokens.contains_key("soon") || now_ms() >= soon, "not before its time: {asked}");
        tokens == HashMap::from([("longer".to_owned(), later)])
    })
    .await;
}

async fn the_number_changes_with_each_change_and_the_list_outlives_its_node(backend: &dyn Backend) {
    let node = backend.start().await;
    let list = backend.revocations(&node);
    apply(&*list, Change::Block(user("first"))).await;
    let mut seen = HashSet::from([list.version().await.expect("a number")]);
    for change in [
        Change::Block(user("ann")),
        Change::Revoke("t".to_owned(), now_ms() + 60_000),
        Change::Block(user("bob")),
        Change::Unblock(user("bob")),
    ] {
        let earlier = list.version().await.expect("a number");
        apply(&*list, change).await;
        let version = list.version().await.expect("a number");
        assert!(version.follows(earlier) && !earlier.follows(version), "{earlier:?} {version:?}");
        assert!(seen.insert(version), "the number is a new one");
    }
    let before = list.load().await.expect("loaded");
    drop(list);
    node.stop().await;
    let node = backend.start().await;
    assert_eq!(backend.revocations(&node).load().await.expect("loaded"), before);
}
