//! The inbox in Redis: what it does beyond what every inbox promises.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tidings::auth::Identity;
use tidings::broker::redis::RedisBroker;
use tidings::config::channels::{BUILTIN, Rules};
use tidings::inbox::redis::RedisInbox;
use tidings::inbox::{Inbox, InboxError, InboxPage, Marked, PageOf, Receipt};
use tidings::model::{MessageId, Position, UserId};
use tidings::publish::Publisher;
use tidings::redis::Redis;
use tidings::tasks::Tasks;
use tokio_util::sync::DropGuard;

use crate::support::redis::{Cluster, RedisServer, connect, shared_url};
use crate::support::{incoming, rules, wait_until};

const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

struct Bench {
    redis: Redis,
    inbox: RedisInbox,
    publisher: Publisher,
    rules: Arc<Rules>,
    _tasks: (Tasks, DropGuard),
}

impl Bench {
    async fn new(url: &str, rules: Arc<Rules>) -> Self {
        let (redis, tasks) = connect(url).await;
        let broker = Arc::new(RedisBroker::start(redis.clone(), rules.clone(), &tasks));
        let publisher = Publisher::new(broker, rules.clone(), 1 << 20);
        let inbox = RedisInbox::new(redis.clone(), rules.clone(), WEEK);
        let end = tasks.stopping().clone().drop_guard();
        Self { redis, inbox, publisher, rules, _tasks: (tasks, end) }
    }

    async fn notify(&self, channel: &str, id: &str) -> Position {
        let mut sent = incoming(channel, "user:notification", &json!({ "title": id }));
        sent.id = Some(message(id));
        self.publisher.publish_one(Identity::server(), sent).await.expect("a notification is taken").position
    }

    async fn unread(&self, after: Option<i64>, limit: usize) -> InboxPage {
        self.inbox.unread(&ann(), PageOf { after, limit, bytes: usize::MAX }).await.expect("a page")
    }

    async fn offline(&self) -> Vec<String> {
        ids(&self
            .inbox
            .offline(&ann(), None, PageOf { after: None, limit: 100, bytes: usize::MAX })
            .await
            .expect("a page"))
    }

    async fn keys(&self) -> Vec<String> {
        let pattern = format!("{}*", self.redis.options().prefix);
        self.redis.query(redis::cmd("KEYS").arg(pattern)).await.expect("keys")
    }
}

fn ann() -> UserId {
    UserId::parse("ann").expect("a user id")
}

fn message(id: &str) -> MessageId {
    MessageId::parse(id).expect("a message id")
}

fn ids(page: &InboxPage) -> Vec<String> {
    page.entries.iter().map(|entry| entry.id.to_string()).collect()
}

#[tokio::test]
async fn a_receipt_that_comes_twice_counts_once() {
    let bench = Bench::new(&shared_url(), rules()).await;
    let position = bench.notify("user-notifications-ann", "m1").await;
    let receipt = || Receipt { user_id: ann(), position: position.clone(), live: true, taker: "a".into() };
    // The answer to the first try was lost.
    for _ in 0..2 {
        bench.inbox.delivered(vec![receipt()]).await.expect("noted");
    }
    assert!(bench.offline().await.is_empty());
    bench.inbox.failed(vec![receipt()]).await.expect("noted");
    assert_eq!(bench.offline().await, ["m1"]);
}

#[tokio::test]
async fn lists_of_several_inboxes_of_one_user_are_one_list() {
    let more = r#"
[channel.news]
pattern = "news-of-{userId}"
events = ["user:notification", "user:notification:recalled"]
"#;
    let rules = Arc::new(Rules::parse("channels.toml", &format!("{BUILTIN}{more}")).expect("rules"));
    let bench = Bench::new(&shared_url(), rules).await;
    let mut sent = Vec::new();
    for n in 0..20 {
        let channel = if n % 3 == 0 { "news-of-ann" } else { "user-notifications-ann" };
        bench.notify(channel, &format!("m{n}")).await;
        sent.push(format!("m{n}"));
    }
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = bench.unread(after, 3).await;
        assert_eq!(page.total, 20);
        assert!(page.entries.len() <= 3);
        seen.extend(ids(&page));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, sent);
    let both = |a: &str, b: &str| vec![message(a), message(b)];
    let refused = bench.inbox.mark_read(&ann(), both("m0", "none")).await;
    assert!(matches!(refused, Err(InboxError::NotFound(id)) if id == message("none")));
    assert_eq!(bench.unread(None, 1).await.total, 20);
    let marked = bench.inbox.mark_read(&ann(), both("m0", "m1")).await.expect("marked");
    assert_eq!(marked, Marked { changed: 2, left: 18 });
    let confirmed = bench.inbox.confirm(&ann(), both("m3", "m4")).await.expect("confirmed");
    assert_eq!(confirmed, Marked { changed: 2, left: 18 });
    // One id may be in both.
    bench.notify("news-of-ann", "m1").await;
    assert_eq!(bench.inbox.find(&message("m1"), 10).await.expect("found").len(), 2);
    assert_eq!(bench.inbox.unread_in_all().await.expect("a count"), 19);
}

#[tokio::test]
async fn what_went_by_itself_is_counted_out() {
    let bench = Bench::new(&shared_url(), rules()).await;
    for n in 0..3 {
        bench.notify("user-notifications-ann", &format!("m{n}")).await;
        bench.notify("user-notifications-bob", &format!("m{n}")).await;
    }
    let keys = bench.keys().await;
    let mut timeless = Vec::new();
    for key in &keys {
        let ttl: i64 = bench.redis.query(redis::cmd("PTTL").arg(key)).await.expect("a time");
        if ttl < 0 {
            timeless.push(key);
        }
    }
    assert!(timeless.is_empty() && keys.len() > 10, "without an end: {timeless:?}");
    // Nobody removed anything for so long that it went.
    for key in keys.iter().filter(|key| key.contains("notifications-ann}n")) {
        bench.redis.query::<()>(redis::cmd("DEL").arg(key)).await.expect("gone");
    }
    let short = RedisInbox::new(bench.redis.clone(), bench.rules.clone(), Duration::from_millis(1));
    assert_eq!(bench.inbox.unread_in_all().await.expect("a count"), 6);
    wait_until("all are old", async || {
        while short.retain().await.expect("retention") {}
        bench.inbox.unread_in_all().await.expect("a count") == 0
    })
    .await;
    // Where an id was stays known for as long as its entry could have been there.
    let left = bench.keys().await.into_iter().filter(|key| key.contains("}n"));
    let left: Vec<_> = left.filter(|key| !key.contains("{x}nf:")).collect();
    assert!(left.iter().all(|key| key.ends_with("{x}n")), "{left:?}");
    assert!(bench.inbox.find(&message("m1"), 10).await.expect("found").is_empty());
}

#[tokio::test]
async fn while_redis_is_away_the_inbox_says_so_and_afterwards_it_is_whole() {
    // Else up to two seconds may be lost where the disk is slow and Redis is killed.
    let mut server = RedisServer::start_with(&["--appendfsync", "always"]);
    let bench = Bench::new(&server.url(), rules()).await;
    bench.notify("user-notifications-ann", "m1").await;
    server.kill();
    let page = PageOf { after: None, limit: 10, bytes: usize::MAX };
    assert!(matches!(bench.inbox.unread(&ann(), page).await, Err(InboxError::Unavailable(_))));
    let marked = bench.inbox.mark_read(&ann(), vec![message("m1")]).await;
    assert!(matches!(marked, Err(InboxError::Unavailable(_))));
    server.restart();
    wait_until("it is back", async || bench.inbox.unread(&ann(), page).await.is_ok()).await;
    assert_eq!(ids(&bench.unread(None, 10).await), ["m1"]);
    let recalled =
        incoming("user-notifications-ann", "user:notification:recalled", &json!({ "messageId": "m1" }));
    bench.publisher.publish_one(Identity::server(), recalled).await.expect("a recall is taken");
    assert_eq!(bench.unread(None, 10).await.total, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_cluster_counts_and_ids_are_of_all_inboxes_wherever_they_are() {
    let cluster = Cluster::start();
    let bench = Bench::new(&cluster.url(), rules()).await;
    for n in 0..40 {
        bench.notify(&format!("user-notifications-user{n}"), "to-all").await;
        bench.notify(&format!("user-notifications-user{n}"), &format!("m{n}")).await;
    }
    assert_eq!(bench.inbox.unread_in_all().await.expect("a count"), 80);
    let found = bench.inbox.find(&message("to-all"), 100).await.expect("found");
    let users: BTreeSet<_> = found.iter().map(|entry| entry.user_id.to_string()).collect();
    assert_eq!((found.len(), users.len()), (40, 40));
    assert_eq!(bench.inbox.find(&message("m7"), 100).await.expect("found").len(), 1);
    let user = UserId::parse("user7").expect("a user id");
    let marked = bench.inbox.mark_read(&user, vec![message("m7")]).await.expect("marked");
    assert_eq!(marked, Marked { changed: 1, left: 1 });
    assert_eq!(bench.inbox.unread_in_all().await.expect("a count"), 79);
    let short = RedisInbox::new(bench.redis.clone(), bench.rules.clone(), Duration::from_millis(1));
    wait_until("all are old", async || {
        while short.retain().await.expect("retention") {}
        short.unread_in_all().await.expect("a count") == 0
    })
    .await;
    assert!(bench.inbox.find(&message("to-all"), 100).await.expect("found").is_empty());
}
