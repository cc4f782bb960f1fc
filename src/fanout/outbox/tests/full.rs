//! A transport that is full: what waits, what is superseded, who falls behind.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_full_transport_keeps_everything_and_is_tried_again() {
    let mut desk = Desk::new();
    desk.capacity = 2;
    desk.normal(&["a", "b", "b", "a", "a"]);
    assert_eq!(desk.left(), "a1 | b1");
    desk.normal(&["c"]);
    desk.push("a", Priority::Critical, None, false);
    desk.wait(9).await;
    desk.capacity = 3;
    assert_eq!(desk.left(), "");
    desk.wait(1).await;
    assert_eq!(desk.left(), "a2 | a3 | a4");
    desk.capacity = usize::MAX;
    desk.wait(10).await;
    assert_eq!(desk.left(), "b2 | c1");
    desk.wait(1000).await;
    assert_eq!(desk.left(), "");
}

#[tokio::test(start_paused = true)]
async fn a_newer_message_supersedes_an_older_one_only_while_the_transport_is_full() {
    let mut desk = Desk::new();
    desk.normal(&["x"]);
    desk.left();
    for _ in 0..3 {
        desk.push("a", Priority::Normal, Some("k"), false);
    }
    desk.wait(100).await;
    assert_eq!(desk.left(), "a1 | a2 | a3", "a receiver that keeps up gets all");
    desk.wait(100).await;
    desk.capacity = 0;
    for key in [Some("k"), None, Some("k"), Some("l"), Some("k"), None] {
        desk.push("a", Priority::Normal, key, false);
    }
    desk.capacity = usize::MAX;
    desk.wait(10).await;
    assert_eq!(desk.left(), "a5+1 | a7+1 | a8 | a9");
}

#[tokio::test(start_paused = true)]
async fn at_the_bound_the_least_urgent_and_largest_channel_falls_behind_and_only_if_the_transport_is_full() {
    let mut desk = Desk::new();
    desk.normal(&["a"]);
    desk.left();
    for _ in 0..3 {
        desk.push_bytes("a", Priority::Normal, None, false, 60_000);
    }
    assert!(desk.fallen.is_empty(), "the transport has room");
    assert_eq!(desk.left(), "a2 | a3", "and took what was too much to wait");
    desk.wait(100).await;
    assert_eq!(desk.left(), "a4");
    desk.wait(100).await;
    desk.capacity = 0;
    desk.push_bytes("small", Priority::Low, None, false, 10);
    desk.push_bytes("urgent", Priority::Critical, None, false, 40_000);
    desk.push_bytes("a", Priority::Normal, None, false, 30_000);
    desk.push_bytes("large", Priority::Low, None, false, 40_000);
    assert_eq!(desk.fallen, ["large", "small", "a"], "until half of the bound is free, urgent ones last");
    desk.push_bytes("large", Priority::Low, None, false, 10);
    desk.capacity = usize::MAX;
    desk.wait(10).await;
    assert_eq!(desk.left(), "urgent1", "whoever fell behind takes nothing live");
    let written = desk.outbox.written_of(&ChannelName::parse("a").unwrap()).cloned();
    assert_eq!(written.map(|p| p.offset), Some(4), "its place is known");
}

#[tokio::test(start_paused = true)]
async fn a_replay_was_promised_and_is_not_conflated() {
    let mut desk = Desk::new();
    desk.join("a", false);
    desk.offsets.insert("a".to_owned(), 3);
    let channel = ChannelName::parse("a").unwrap();
    desk.outbox.leave(&channel);
    let membership = desk.outbox.enter(&channel, false);
    desk.capacity = 0;
    for offset in 1..=3 {
        let message = message("a", offset, Priority::Normal, Some("k"), 10);
        let flush = desk.outbox.resume(membership, &message, 0, WINDOW, Instant::now()).expect("a member");
        desk.act(flush);
    }
    assert!(desk.outbox.go_live(&channel, membership));
    for _ in 0..3 {
        desk.push("a", Priority::Normal, Some("k"), false);
    }
    desk.capacity = usize::MAX;
    desk.wait(10).await;
    assert_eq!(desk.left(), "a1 | a2 | a3 | a6+2");
    desk.outbox.enter(&channel, false);
    let late = message("a", 9, Priority::Normal, None, 10);
    assert_eq!(desk.outbox.resume(membership, &late, 0, WINDOW, Instant::now()), None, "it was replaced");
}

#[tokio::test(start_paused = true)]
async fn who_falls_behind_in_the_middle_of_a_replay_still_gets_what_was_promised() {
    let mut desk = Desk::new();
    let channel = ChannelName::parse("a").unwrap();
    let membership = desk.outbox.enter(&channel, false);
    desk.offsets.insert("a".to_owned(), 2);
    desk.capacity = 0;
    for offset in 1..=2 {
        let message = message("a", offset, Priority::Normal, Some("k"), 10);
        let flush = desk.outbox.resume(membership, &message, 0, WINDOW, Instant::now()).expect("a member");
        desk.act(flush);
    }
    assert!(desk.outbox.go_live(&channel, membership));
    for key in ["k", "l", "m"] {
        desk.push_bytes("a", Priority::Normal, Some(key), false, 60_000);
    }
    assert_eq!(desk.fallen, ["a"]);
    let known = desk.outbox.known_of(&channel, membership);
    assert_eq!(known.map(|p| p.offset), Some(2), "history goes on after the promised ones");
    desk.capacity = usize::MAX;
    desk.wait(10).await;
    assert_eq!(desk.left(), "a1 | a2");
}

#[tokio::test(start_paused = true)]
async fn a_reset_that_waits_does_not_keep_its_channel_from_falling_behind() {
    let mut desk = Desk::new();
    desk.normal(&["a"]);
    desk.capacity = 0;
    let (channel, membership) = (ChannelName::parse("a").unwrap(), Membership(1));
    let position = Position { epoch: Epoch::new("f"), offset: 7 };
    let flush = desk.outbox.reset(&channel, membership, RawValue::NULL.to_owned(), position.clone());
    desk.act(flush);
    for _ in 0..3 {
        desk.push_bytes("a", Priority::Normal, None, false, 60_000);
    }
    assert_eq!(desk.fallen, ["a"]);
    assert_eq!(desk.outbox.known_of(&channel, membership), Some(position));
    assert!(desk.outbox.has_room(), "what waited was dropped");
}
