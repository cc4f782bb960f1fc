//! What every [`tidings::inbox::Inbox`] promises.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tidings::auth::Identity;
use tidings::inbox::{Inbox, InboxError, InboxPage, MAX_PER_USER, Marked, PageOf, Receipt, Status};
use tidings::model::{MessageId, Position, UserId};

use super::Node;
use crate::conformance::{Backend, for_each_backend};
use crate::support::{channel, incoming, wait_until};

for_each_backend!(a cluster too:
    every_notification_is_an_entry_from_its_append_on,
    only_notifications_to_a_user_are_entries,
    an_id_that_the_inbox_knows_is_no_second_entry,
    a_recall_is_one_with_its_append_and_stays,
    the_unread_are_listed_oldest_first_page_by_page,
    a_page_has_so_many_bytes_and_at_least_one_entry,
    marking_as_read_is_idempotent_and_all_or_nothing,
    unread_counts_are_exact_while_devices_mark_at_once,
    offline_is_what_no_device_took_as_it_came_until_it_is_confirmed,
    a_broken_connection_gives_back_what_it_was_said_to_have_taken,
    an_acknowledgement_confirms_everything_up_to_its_position,
    what_is_on_its_way_is_left_out,
    a_returning_user_goes_on_at_the_oldest_entry_that_waits,
    entries_outlive_history_the_process_and_each_other,
    old_entries_go_and_the_newest_of_a_user_stay,
);

const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
const ALL: PageOf = PageOf { after: None, limit: 100_000, bytes: usize::MAX };

fn user(name: &str) -> UserId {
    UserId::parse(name).expect("a user id")
}

fn id(text: &str) -> MessageId {
    MessageId::parse(text).expect("a message id")
}

fn room(name: &str) -> String {
    format!("user-notifications-{name}")
}

/// Sends a notification through the publish door; where it stands.
async fn notify(node: &Node, name: &str, message: &str) -> Position {
    let mut sent = incoming(&room(name), "user:notification", &json!({ "title": message }));
    sent.id = Some(id(message));
    sent.user_id = Some(user("sender"));
    node.publisher.publish_one(Identity::server(), sent).await.expect("a notification is taken").position
}

async fn recall(node: &Node, name: &str, message: &Value) {
    let sent = incoming(&room(name), "user:notification:recalled", &json!({ "messageId": message }));
    node.publisher.publish_one(Identity::server(), sent).await.expect("a recall is taken");
}

fn ids(page: &InboxPage) -> Vec<&str> {
    page.entries.iter().map(|entry| entry.id.as_str()).collect()
}

async fn unread(inbox: &dyn Inbox, name: &str) -> InboxPage {
    let page = inbox.unread(&user(name), ALL).await.expect("a list");
    assert_eq!(page.total, page.entries.len() as u64);
    page
}

async fn offline(inbox: &dyn Inbox, name: &str) -> InboxPage {
    let page = inbox.offline(&user(name), None, ALL).await.expect("a list");
    assert_eq!(page.total, page.entries.len() as u64);
    page
}

fn receipt(name: &str, position: &Position, live: bool) -> Receipt {
    by("a", name, position, live)
}

fn by(taker: &str, name: &str, position: &Position, live: bool) -> Receipt {
    Receipt { user_id: user(name), position: position.clone(), live, taker: taker.into() }
}

fn names(range: std::ops::RangeInclusive<u32>) -> Vec<String> {
    range.map(|n| format!("m{n}")).collect()
}

async fn start(backend: &dyn Backend) -> (Node, Arc<dyn Inbox>) {
    let node = backend.start().await;
    let inbox = backend.inbox(&node, WEEK);
    (node, inbox)
}

async fn every_notification_is_an_entry_from_its_append_on(backend: &dyn Backend) {
    let (node, inbox) = start(backend).await;
    let position = notify(&node, "ann", "m1").await;
    let page = unread(&*inbox, "ann").await;
    let entry = &page.entries[0];
    assert_eq!((&entry.id, &entry.user_id, &entry.position), (&id("m1"), &user("ann"), &position));
    assert_eq!((entry.status, &entry.sender_id), (Status::Unread, &Some(user("sender"))));
    assert_eq!(entry.channel.as_str(), room("ann"));
    let mut json: Value = serde_json::from_str(entry.json.get()).expect("JSON");
    assert_eq!(json.as_object_mut().and_then(|fields| fields.remove("status")), Some(json!("unread")));
    let history = crate::support::history(&*node.broker, &room("ann")).await;
    assert_eq!(json, crate::support::read(&history[0]), "beside its status it is the message");
    assert_eq!(inbox.unread_in_all().await.expect("a count"), 1);
}

async fn only_notifications_to_a_user_are_entries(backend: &dyn Backend) {
    let (node, inbox) = start(backend).await;
    let told = incoming("plain-ann", "custom:x", &json!({}));
    node.publisher.publish_one(Identity::server(), told).await.expect("taken");
    recall(&node, "ann", &json!("none")).await;
    recall(&node, "ann", &json!({ "no": "id" })).await;
    assert_eq!(unread(&*inbox, "ann").await.total, 0);
    assert_eq!(inbox.unread_in_all().await.expect("a count"), 0);
}

async fn an_id_that_the_inbox_knows_is_no_second_entry(backend: &dyn Backend) {
    let (node, inbox) = start(backend).await;
    notify(&node, "ann", "m1").await;
    notify(&node, "bob", "m1").await;
    inbox.mark_read(&user("ann"), vec![id("m1")]).await.expect("read");
    notify(&node, "ann", "m1").await;
    assert_eq!(unread(&*inbox, "ann").await.total, 0);
    assert_eq!(unread(&*inbox, "bob").await.total, 1, "an id belongs to its channel");
    assert_eq!(inbox.find(&id("m1"), 10).await.expect("found").len(), 2);
}

async fn a_recall_is_one_with_its_append_and_stays(backend: &dyn Backend) {
    let (node, inbox) = start(backend).await;
    for message in ["m1", "m2"] {
        notify(&node, "ann", message).await;
        notify(&node, "bob", message).await;
    }
    recall(&node, "ann", &json!("m1")).await;
    assert_eq!(ids(&unread(&*inbox, "ann").await), ["m2"]);
    assert_eq!(unread(&*inbox, "bob").await.total, 2, "the inbox of somebody else is not touched");
    let marked = inbox.mark_read(&user("ann"), vec![id("m1"), id("m2")]).await.expect("marked");
    assert_eq!(marked, Marked { changed: 1, left: 0 });
    recall(&node, "ann", &json!("m2")).await;
    let page = offline(&*inbox, "ann").await;
    assert!(page.entries.iter().all(|entry| entry.status == Status::Recalled), "{page:?}");
    assert_eq!(inbox.unread_in_all().await.expect("a count"), 2);
}

async fn the_unread_are_listed_oldest_first_page_by_page(backend: &dyn Backend) {
    let (node, inbox) = start(backend).await;
    for message in names(1..=10) {
        notify(&node, "ann", &message).await;
        notify(&node, "bob", &message).await;
    }
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page =
            inbox.unread(&user("ann"), PageOf { after, limit: 3, bytes: usize::MAX }).await.expect("a page");
        assert_eq!(page.total, 10 - seen.len() as u64);
        let own: Vec<_> = page.entries.iter().map(|entry| entry.id.clone()).collect();
        seen.extend(own.iter().map(ToString::to_string));
        // What is read between two pages moves nobody's place.
        inbox.mark_read(&user("ann"), own).await.expect("read");
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, names(1..=10));
    assert_eq!(unread(&*inbox, "bob").await.total, 10);
}

async fn a_page_has_so_many_bytes_and_at_least_one_entry(backend: &dyn Backend) {
    let (node, inbox) = start(backend).await;
    for message in names(1..=10) {
        notify(&node, "ann", &message).await;
    }
    let of_one = unread(&*inbox, "ann").await.entries[0].json.get().len();
    // About two and a half, and less than one.
    for (bytes, fit) in [(of_one * 5 / 2, 2..=4), (10, 1..=1)] {
        for which in ["unread", "offline"] {
            let (mut seen, mut after) = (Vec::new(), None);
            loop {
                let page = PageOf { after, limit: 100, bytes };
                let page = match which {
                    "unread" => inbox.unread(&user("ann"), page).await,
                    _ => inbox.offline(&user("ann"), None, page).await,
                };
                let page = page.expect("a page");
                let (len, is_last) = (page.entries.len(), page.next.is_none());
                assert!(
                    len <= *fit.end() && (is_last || len >= *fit.start()),
                    "{which} within {bytes}: {len}"
                );
                assert_eq!(page.total, 10);
                seen.extend(ids(&page).into_iter().map(str::to_owned));
                after = page.next;
                if is_last {
                    break;
                }
            }
            assert_eq!(seen, names(1..=10), "{which} within {bytes}");
        }
    }
}

async fn marking_as_read_is_idempotent_and_all_or_nothing(backend: &dyn Backend) {
    let (node, inbox) = start(backend).await;
    notify(&node, "ann", "m1").await;
    notify(&node, "ann", "m2").await;
    notify(&node, "bob", "m3").await;
    for wrong in ["m3", "none"] {
        let refused = inbox.mark_read(&user("ann"), vec![id("m1"), id(wrong)]).await;
        assert!(matches!(refused, Err(InboxError::NotFound(missing)) if missing == id(wrong)));
        let refused = inbox.confirm(&user("ann"), vec![id("m1"), id(wrong)]).await;
        assert!(matches!(refused, Err(InboxError::NotFound(missing)) if missing == id(wrong)));
    }
    assert_eq!((unread(&*inbox, "ann").await.total, offline(&*inbox, "ann").await.total), (2, 2));
    let twice = vec![id("m1"), id("m1")];
    let marked = inbox.mark_read(&user("ann"), twice.clone()).await.expect("marked");
    assert_eq!(marked, Marked { changed: 1, left: 1 });
    let read_at = |page: InboxPage| {
        serde_json::from_str::<Value>(page.entries[0].json.get()).expect("JSON")["readAt"].clone()
    };
    let first = read_at(offline(&*inbox, "ann").await);
    assert!(first.is_i64());
    let marked = inbox.mark_read(&user("ann"), twice).await.expect("marked");
    assert_eq!(marked, Marked { changed: 0, left: 1 });
    assert_eq!(read_at(offline(&*inbox, "ann").await), first, "it was read when it was first read");
    assert_eq!(inbox.mark_read(&user("ann"), vec![]).await.expect("marked"), Marked { changed: 0, left: 1 });
}

async fn unread_counts_are_exact_while_devices_mark_at_once(backend: &dyn Backend) {
    let (node, inbox) = start(backend).await;
    let all = names(1..=60);
    for message in &all {
        notify(&node, "ann", message).await;
    }
    let devices = (0..6).map(|device| {
        let (inbox, all) = (inbox.clone(), all.clone());
        tokio::spawn(async move {
            let mut changed = 0;
            for part in all[device..40 + device].chunks(3) {
                let ids = part.iter().map(|m| id(m)).collect();
                changed += inbox.mark_read(&user("ann"), ids).await.expect("marked").changed;
            }
            changed
        })
    });
    let mut changed = 0;
    for device in devices.collect::<Vec<_>>() {
        changed += device.await.expect("a device ends");
    }
    assert_eq!(changed, 45, "each message is marked by exactly one of the devices");
    assert_eq!(unread(&*inbox, "ann").await.total, 15);
    assert_eq!(inbox.unread_in_all().await.expect("a count"), 15);
}

async fn offline_is_what_no_device_took_as_it_came_until_it_is_confirmed(backend: &dyn Backend) {
    let (node, inbox) = start(backend).await;
    let mut places = Vec::new();
    for message in names(1..=4) {
        places.push(notify(&node, "ann", &message).await);
    }
    inbox.delivered(vec![receipt("ann", &places[0], true)]).await.expect("noted");
    assert_eq!(ids(&offline(&*inbox, "ann").await), ["m2", "m3", "m4"]);
    inbox.delivered(vec![receipt("ann", &places[1], false)]).await.expect("noted");
    inbox.mark_read(&user("ann"), vec![id("m2")]).await.expect("read");
    let page = offline(&*inbox, "ann").await;
    assert_eq!(ids(&page), ["m2", "m3", "m4"], "neither a later delivery nor reading confirms");
    let json: Value = serde_json::from_str(page.entries[0].json.get()).expect("JSON");
    assert!(json["deliveredAt"].is_i64(), "{json}");
    let confirmed = inbox.confirm(&user("ann"), vec![id("m2")]).await.expect("confirmed");
    assert_eq!(confirmed, Marked { changed: 1, left: 2 });
    let confirmed = inbox.confirm(&user("ann"), vec![id("m2")]).await.expect("confirmed");
    assert_eq!(confirmed, Marked { changed: 0, left: 2 });
    inbox.delivered(vec![receipt("bob", &places[2], true)]).await.expect("passed over");
    assert_eq!(ids(&offline(&*inbox, "ann").await), ["m3", "m4"]);
    assert_eq!(unread(&*inbox, "ann").await.total, 3, "confirming is not reading");
}

async fn a_broken_connection_gives_back_what_it_was_said_to_have_taken(backend: &dyn Backend) {
    let (node, inbox) = start(backend).await;
    let (first, second) = (notify(&node, "ann", "m1").await, notify(&node, "ann", "m2").await);
    // Two devices took the first one, one of them the second.
    let taken =
        vec![by("a", "ann", &first, true), by("b", "ann", &first, true), by("a", "ann", &second, true)];
    inbox.delivered(taken).await.expect("noted");
    assert_eq!(offline(&*inbox, "ann").await.total, 0);
    inbox.failed(vec![receipt("ann", &first, true), receipt("ann", &second, true)]).await.expect("noted");
    assert_eq!(ids(&offline(&*inbox, "ann").await), ["m2"], "the other device still has the first");
    inbox.failed(vec![by("b", "ann", &first, true)]).await.expect("noted");
    inbox.failed(vec![by("b", "ann", &first, true)]).await.expect("passed over");
    assert_eq!(ids(&offline(&*inbox, "ann").await), ["m1", "m2"]);
    inbox.delivered(vec![receipt("ann", &first, true)]).await.expect("noted");
    assert_eq!(ids(&offline(&*inbox, "ann").await), ["m2"]);
}

async fn an_acknowledgement_confirms_everything_up_to_its_position(backend: &dyn Backend) {
    let (node, inbox) = start(backend).await;
    let mut places = Vec::new();
    for message in names(1..=4) {
        places.push(notify(&node, "ann", &message).await);
        notify(&node, "bob", &message).await;
    }
    let other = Position { epoch: tidings::model::Epoch::new("another"), offset: 100 };
    assert_eq!(inbox.acknowledge(&user("ann"), &other).await.expect("taken"), 0);
    assert_eq!(inbox.acknowledge(&user("bob"), &places[3]).await.expect("taken"), 0, "another's position");
    assert_eq!(inbox.acknowledge(&user("ann"), &places[2]).await.expect("taken"), 3);
    assert_eq!(inbox.acknowledge(&user("ann"), &places[1]).await.expect("taken"), 0);
    assert_eq!(ids(&offline(&*inbox, "ann").await), ["m4"]);
    assert_eq!((offline(&*inbox, "bob").await.total, unread(&*inbox, "ann").await.total), (4, 4));
    let far = Position { epoch: places[0].epoch.clone(), offset: u64::MAX };
    assert_eq!(inbox.acknowledge(&user("ann"), &far).await.expect("taken"), 1);
}

async fn what_is_on_its_way_is_left_out(backend: &dyn Backend) {
    let (node, inbox) = start(backend).await;
    notify(&node, "ann", "m1").await;
    let began = tidings::model::now_ms();
    wait_until("the clock goes on", async || tidings::model::now_ms() > began).await;
    notify(&node, "ann", "m2").await;
    let page = inbox.offline(&user("ann"), Some(began), ALL).await.expect("a list");
    assert_eq!((ids(&page), page.total), (vec!["m1"], 1));
}

async fn a_returning_user_goes_on_at_the_oldest_entry_that_waits(backend: &dyn Backend) {
    let (node, inbox) = start(backend).await;
    let waiting = async || {
        let found = inbox.waiting(&user("ann"), &channel(&room("ann"))).await.expect("a look");
        found.map(|position| position.offset)
    };
    assert_eq!(waiting().await, None);
    let mut places = Vec::new();
    for message in names(1..=4) {
        places.push(notify(&node, "ann", &message).await);
    }
    assert_eq!(waiting().await, Some(1));
    inbox.mark_read(&user("ann"), vec![id("m1")]).await.expect("read");
    assert_eq!(waiting().await, Some(1), "read elsewhere, but nobody confirmed it");
    inbox.confirm(&user("ann"), vec![id("m1")]).await.expect("confirmed");
    assert_eq!(waiting().await, Some(2));
    recall(&node, "ann", &json!("m2")).await;
    assert_eq!(waiting().await, Some(3), "what was recalled need not be seen");
    let taken = places.iter().map(|place| receipt("ann", place, true)).collect();
    inbox.delivered(taken).await.expect("noted");
    assert_eq!(waiting().await, Some(3), "taken, but unread");
    inbox.mark_read(&user("ann"), vec![id("m3"), id("m4")]).await.expect("read");
    assert_eq!(waiting().await, None);
}

async fn entries_outlive_history_the_process_and_each_other(backend: &dyn Backend) {
    let (node, inbox) = start(backend).await;
    for message in names(1..=3) {
        notify(&node, "ann", &message).await;
    }
    inbox.mark_read(&user("ann"), vec![id("m2")]).await.expect("read");
    drop((inbox, node));

    let (node, inbox) = start(backend).await;
    assert_eq!(ids(&unread(&*inbox, "ann").await), ["m1", "m3"]);
    assert_eq!(offline(&*inbox, "ann").await.total, 3);
    assert_eq!(inbox.unread_in_all().await.expect("a count"), 2);
    assert_eq!(notify(&node, "ann", "m4").await.offset, 4);
}

async fn old_entries_go_and_the_newest_of_a_user_stay(backend: &dyn Backend) {
    let (node, inbox) = start(backend).await;
    let most = u32::try_from(MAX_PER_USER).expect("not many");
    for part in names(1..=most + 5).chunks(200) {
        let sent = part.iter().map(|message| {
            let mut sent = incoming(&room("ann"), "user:notification", &json!({}));
            sent.id = Some(id(message));
            sent
        });
        node.publisher.publish(Identity::server(), sent.collect()).await;
    }
    notify(&node, "bob", "m1").await;
    let page = unread(&*inbox, "ann").await;
    assert_eq!((page.total, page.entries[0].id.as_str()), (u64::from(most), "m6"));
    assert!(!inbox.retain().await.expect("retention"), "nothing is old");
    assert_eq!(inbox.unread_in_all().await.expect("a count"), u64::from(most) + 1);

    let short = backend.inbox(&node, Duration::from_millis(1));
    wait_until("all are old", async || {
        while short.retain().await.expect("retention") {}
        short.unread_in_all().await.expect("a count") == 0
    })
    .await;
    assert_eq!((unread(&*inbox, "ann").await.total, offline(&*inbox, "bob").await.total), (0, 0));
}
