//! What servers of earlier layouts left in Redis is read, and goes on.
//!
//! The samples are what such a server had written when it was killed, as the commands that bring it back; a character
//! is a byte. Left out is what ends by itself within seconds of a node's death.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Map;
use tidings::broker::append::{Append, Draft};
use tidings::broker::redis::RedisBroker;
use tidings::broker::{AppendGroup, Broker};
use tidings::config::channels::{BUILTIN, Rules};
use tidings::inbox::redis::RedisInbox;
use tidings::inbox::{Inbox, PageOf};
use tidings::model::{EventName, JobState, MessageId, Priority, TestId, TestState, UserId, WorkerId, now_ms};
use tidings::queue::redis::RedisQueue;
use tidings::queue::{Ending, NewJob, Queue, QueueOptions};
use tidings::revocation::Revocations;
use tidings::revocation::redis::RedisRevocations;
use tidings::sync::redis::RedisSync;
use tidings::sync::{Basis, Device, SyncState};

use crate::support::redis::{RedisServer, connect};
use crate::support::{ALL, channel, id_of, raw, read};

/// The samples are of one day.
const LONG: Duration = Duration::from_hours(10 * 365 * 24);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_first_layout_left_is_read_and_goes_on() {
    goes_on(include_str!("../../samples/redis/layout_1.jsonl")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_second_layout_left_is_read_and_goes_on() {
    goes_on(include_str!("../../samples/redis/layout_2.jsonl")).await;
}

async fn goes_on(sample: &str) {
    let commands: Vec<Vec<String>> =
        sample.lines().map(|line| serde_json::from_str(line).expect("a command")).collect();
    let server = RedisServer::start();
    bring_back(&server, &commands);
    // Twice: what the first one writes is for the second one, too.
    for round in 0..2 {
        let (redis, tasks) = connect(&server.url()).await;
        let rules = Rules::parse("channels.toml", &BUILTIN.replace("\"7d\"", "\"10years\""));
        let rules = Arc::new(rules.expect("rules"));
        let broker = Arc::new(RedisBroker::start(redis.clone(), rules.clone(), &tasks));
        messages_are_there(&broker, &rules, &commands, round).await;
        tests_are_there(&broker).await;
        let options = QueueOptions {
            max_attempts: 3,
            lease: LONG,
            backoff_base: Duration::from_millis(1),
            backoff_max: Duration::from_millis(1),
            retention: LONG,
            max_jobs_kept: 100,
        };
        let queue = RedisQueue::start(redis.clone(), broker.clone(), rules.clone(), options, &tasks).await;
        jobs_go_on(&queue, &broker, round).await;
        // Servers of the first layout knew no past.
        let runs = commands.iter().filter(|command| command[1].contains("}:past:")).count();
        assert_eq!(queue.past("command:unit").await.expect("a past").runs().len(), runs);
        let user = UserId::parse("u1").expect("a user");
        let inbox = RedisInbox::new(redis.clone(), rules, LONG);
        let unread = inbox
            .unread(&user, PageOf { after: None, limit: 10, bytes: usize::MAX })
            .await
            .expect("an inbox");
        assert_eq!((unread.entries.len(), unread.total), (1, 1), "one of the two was read");
        let device = Device { user_id: Some(user), client_id: "tab".to_owned() };
        let place = RedisSync::new(redis.clone(), LONG).load(&device, &channel("test-progress-ext")).await;
        let place = place.expect("a look").expect("a place");
        assert_eq!((place.position.offset, place.basis), (4, Basis::Written));
        let revoked = RedisRevocations::new(redis).load().await.expect("a list");
        assert_eq!(revoked.users, [UserId::parse("u9").expect("a user")].into());
        tasks.stopping().cancel();
    }
    // Programs that know only older layouts are refused from the first look on.
    let fresh = RedisServer::start();
    let (_, _tasks) = connect(&fresh.url()).await;
    let mark = |server: &RedisServer| server.cli(&["GET", "tidings{meta}layout"]);
    assert_eq!(mark(&server), mark(&fresh));
}

/// Every message as it was, known by its id; new ones stand behind.
async fn messages_are_there(broker: &RedisBroker, rules: &Rules, commands: &[Vec<String>], round: u64) {
    let histories: Vec<_> = commands.iter().filter(|command| command[0] == "XADD").collect();
    let mut names: Vec<_> = histories.iter().map(|command| name_of(&command[1])).collect();
    names.dedup();
    assert!(names.len() > 8, "{names:?}");
    for name in names {
        let meta = format!("tidings{{c:{name}}}m");
        let meta = commands.iter().find(|command| command[1] == meta).expect("a channel has a past");
        let epoch = &meta[1 + meta.iter().position(|field| field == "epoch").expect("an epoch")];
        let written: Vec<_> = histories
            .iter()
            .filter(|command| name_of(&command[1]) == name)
            .flat_map(|command| records(command))
            .map(|(offset, open)| format!("{open},\"epoch\":\"{epoch}\",\"offset\":{offset}}}"))
            .collect();
        let page = broker.history(&channel(name), 0, ALL).await.expect("a history");
        let json: Vec<_> = page.messages.iter().map(|message| message.json().get().to_owned()).collect();
        assert_eq!(json.get(..written.len()).unwrap_or(&json), written, "{name}");
        for message in &page.messages {
            let (id, position) = (id_of(message), &message.position);
            assert_eq!(add(broker, rules, name, &id).await, (true, position.offset), "{name}: {id} is known");
        }
        let next = add(broker, rules, name, &format!("next-{round}")).await;
        assert_eq!(next, (false, page.top + 1), "{name}");
    }
}

/// Appends a message; whether it was known, and where it stands.
async fn add(broker: &RedisBroker, rules: &Rules, name: &str, id: &str) -> (bool, u64) {
    let draft = Draft {
        id: MessageId::parse(id).expect("an id"),
        fresh: false,
        event: EventName::parse("custom:again").expect("an event"),
        priority: None,
        timestamp_ms: now_ms(),
        user_id: None,
        data: &raw(&serde_json::json!(1)),
        extra: &[],
    };
    let namespace = rules.resolve(name).expect("a channel").namespace;
    let first = Append::new(channel(name), namespace, draft, None);
    let group = AppendGroup { first, mirrors: Vec::new() };
    let answer = broker.append(vec![group]).await.expect("an answer").remove(0).expect("it is taken");
    (answer.duplicate, answer.position.offset)
}

async fn tests_are_there(broker: &RedisBroker) {
    let listed = broker.tests(None, None, 10).await.expect("a list").tests;
    let listed: Vec<_> = listed.iter().map(|test| test.test_id.as_str()).collect();
    assert_eq!(listed, ["ext", "nobody", "later", "unit-1"]);
    let failed = broker.tests(Some(TestState::Failed), None, 10).await.expect("a list").tests;
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].failures[0].name, "b");
    let ext = broker.snapshot(&TestId::parse("ext").expect("an id")).await.expect("a look").expect("a test");
    assert!((ext.progress - 20.0).abs() < f64::EPSILON, "{ext:?}");
}

/// One had ended, one waits for its time, and one for a worker, which it gets in the first round.
async fn jobs_go_on(queue: &RedisQueue, broker: &RedisBroker, round: u64) {
    let jobs = queue.list(None, None, 10).await.expect("a list").jobs;
    let nobody = if round == 0 { JobState::Queued } else { JobState::Completed };
    let states: Vec<_> = jobs.iter().map(|job| (job.test_id.as_str(), job.state)).collect();
    assert_eq!(states, [("nobody", nobody), ("later", JobState::Scheduled), ("unit-1", JobState::Failed)]);
    let known = queue.submit(keyed("night")).await.expect("an answer");
    assert!(known.existing && known.job.job_id == jobs[2].job_id);
    let worker = WorkerId::parse("w").expect("a name");
    let mut claims = queue.claim(&worker, &["elsewhere".to_owned()], 10).await.expect("a claim");
    assert_eq!(claims.len(), if round == 0 { 1 } else { 0 });
    if let Some(claim) = claims.pop() {
        let passed = Ending::Passed { results: Map::new() };
        queue.finish(&claim.lease, Vec::new(), passed).await.expect("an end");
        let own = format!("job-status-{}", claim.job.job_id);
        let page = broker.history(&channel(&own), 0, ALL).await.expect("a history");
        let told: Vec<_> = page.messages.iter().map(|message| read(message)["event"].clone()).collect();
        assert_eq!(told, ["queue:job:added", "custom:again", "queue:job:started", "queue:job:completed"]);
    }
}

fn keyed(key: &str) -> NewJob {
    NewJob {
        test_type: "command".to_owned(),
        name: None,
        config: Map::new(),
        test_id: None,
        priority: Priority::Normal,
        run_at: None,
        max_attempts: None,
        timeout_ms: None,
        dedupe_key: Some(key.to_owned()),
        team_id: None,
        user_id: None,
        traceparent: None,
    }
}

fn name_of(key: &str) -> &str {
    key.strip_prefix("tidings{c:").and_then(|key| key.split_once('}')).expect("a channel's key").0
}

fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).expect("a character is a byte")).collect()
}

/// The offsets and open envelopes in an entry: `XADD KEY LAST-1`, then a field for each message, or one for several
/// with their lengths in its name.
fn records(command: &[String]) -> Vec<(u64, String)> {
    let mut records = Vec::new();
    for field in command[3..].chunks_exact(2) {
        let mut rest = bytes(&field[1]);
        let lengths: Vec<usize> =
            field[0][1..].split_whitespace().map(|length| length.parse().expect("a length")).collect();
        for length in lengths {
            let behind = rest.split_off(length);
            records.push(std::mem::replace(&mut rest, behind));
        }
        if !rest.is_empty() {
            records.push(rest);
        }
    }
    let last: u64 = command[2].strip_suffix("-1").expect("an id").parse().expect("an offset");
    let first = last + 1 - records.len() as u64;
    let open = records.into_iter().map(|record| {
        let record = String::from_utf8(record).expect("records are texts");
        let (head, body) = record.split_once('\n').expect("a line");
        let key: usize = head.rsplit(' ').next().expect("a length").parse().unwrap_or(0);
        body[key..].to_owned()
    });
    (first..).zip(open).collect()
}

/// Sends all commands.
fn bring_back(server: &RedisServer, commands: &[Vec<String>]) {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).expect("a connection");
    let mut answers = BufReader::new(stream.try_clone().expect("a second handle"));
    for command in commands {
        let mut text = format!("*{}\r\n", command.len()).into_bytes();
        for arg in command {
            let arg = bytes(arg);
            text.extend(format!("${}\r\n", arg.len()).bytes());
            text.extend(arg);
            text.extend(b"\r\n");
        }
        stream.write_all(&text).expect("it is sent");
        let mut answer = String::new();
        answers.read_line(&mut answer).expect("an answer");
        assert!(!answer.starts_with('-'), "{}: {answer}", command[1]);
        if let Some(length) = answer.strip_prefix('$') {
            let length: usize = length.trim().parse().expect("a length");
            answers.read_exact(&mut vec![0; length + 2]).expect("an id");
        }
    }
}
