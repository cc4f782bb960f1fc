//! What several nodes make of a Redis that fails: nothing of what was acknowledged is lost, or everybody is told.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidings::broker::Broker;
use tidings::model::Position;
use tokio::task::JoinHandle;

use super::{Node, hears_all};
use crate::support::proxy::Proxy;
use crate::support::redis::RedisServer;
use crate::support::{channel, history, id_of, in_time, stored, wait_until};

const NAME: &str = "plain-1";

/// Somebody who publishes without a pause, and sends again what was not acknowledged.
struct Publisher {
    stop: Arc<AtomicBool>,
    wait: Arc<AtomicBool>,
    waits: Arc<AtomicBool>,
    task: JoinHandle<Vec<(Position, String)>>,
}

impl Publisher {
    fn start(node: &Arc<Node>, who: &'static str) -> Self {
        let (node, stop) = (node.clone(), Arc::new(AtomicBool::new(false)));
        let (wait, waits) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (stopped, waiting, told) = (stop.clone(), wait.clone(), waits.clone());
        let task = tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            while !stopped.load(Ordering::Acquire) {
                while waiting.load(Ordering::Acquire) {
                    told.store(true, Ordering::Release);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                let id = format!("{who}.{}", acknowledged.len());
                acknowledged.push((node.insist(NAME, &id).await, id));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            acknowledged
        });
        Self { stop, wait, waits, task }
    }

    /// What was acknowledged, and where.
    async fn stop(self) -> Vec<(Position, String)> {
        self.stop.store(true, Ordering::Release);
        in_time("the publisher ends", self.task).await.expect("it does not panic")
    }
}

/// Two nodes that hear each other, with a publisher on each.
pub(super) struct Stage {
    nodes: [Arc<Node>; 2],
    publishers: [Publisher; 2],
}

impl Stage {
    pub(super) async fn on(url: &str) -> Self {
        let nodes = [Node::following(url, &[NAME]).await, Node::following(url, &[NAME]).await].map(Arc::new);
        let publishers = [Publisher::start(&nodes[0], "a"), Publisher::start(&nodes[1], "b")];
        let stage = Self { nodes, publishers };
        stage.progress().await;
        stage
    }

    /// Has the publishers wait, once they were answered.
    pub(super) async fn pause(&self) {
        for publisher in &self.publishers {
            publisher.wait.store(true, Ordering::Release);
        }
        let waits = |publisher: &Publisher| publisher.waits.load(Ordering::Acquire);
        wait_until("the publishers wait", async || self.publishers.iter().all(waits)).await;
    }

    /// Has them go on.
    pub(super) fn go_on(&self) {
        for publisher in &self.publishers {
            publisher.wait.store(false, Ordering::Release);
        }
    }

    /// Waits until both nodes hear of new messages from each other.
    pub(super) async fn progress(&self) {
        for (node, other) in self.nodes.iter().zip(["b.", "a."]) {
            let count = || node.heard.of(NAME).iter().filter(|(_, id)| id.starts_with(other)).count();
            let before = count();
            wait_until("messages flow", async || count() >= before + 20).await;
        }
    }

    /// Everything that was acknowledged is there, where it was said to be, and was heard by everybody, once and in
    /// order; nobody was told to start over.
    pub(super) async fn nothing_is_lost(self) {
        self.progress().await;
        let Self { nodes, publishers } = self;
        let mut acknowledged = Vec::new();
        for publisher in publishers {
            acknowledged.extend(publisher.stop().await);
        }
        assert!(acknowledged.len() > 50);
        let kept = history(&nodes[0].broker, NAME).await;
        let ids: HashSet<_> = kept.iter().map(|message| id_of(message)).collect();
        assert_eq!(ids.len(), kept.len(), "each once");
        for (position, id) in &acknowledged {
            let index = usize::try_from(position.offset - 1).expect("a small offset");
            assert_eq!((&kept[index].position, &id_of(&kept[index])), (position, id));
        }
        for node in &nodes {
            hears_all(node, NAME).await;
            assert!(node.heard.resets(NAME).is_empty(), "there was no reason for it");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_killed_and_comes_back_with_its_data_loses_nothing() {
    let mut server = RedisServer::start();
    let stage = Stage::on(&server.url()).await;
    for _ in 0..2 {
        server.kill();
        tokio::time::sleep(Duration::from_millis(200)).await;
        server.restart();
        stage.progress().await;
    }
    stage.nothing_is_lost().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_stands_still_for_seconds_loses_nothing() {
    let server = RedisServer::start();
    let stage = Stage::on(&server.url()).await;
    server.pause();
    let began = Instant::now();
    let refused = in_time("a refusal", stage.nodes[0].append(NAME, "meanwhile")).await;
    assert!(refused.is_err(), "nobody answered");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    tokio::time::sleep(Duration::from_secs(5).saturating_sub(began.elapsed())).await;
    server.resume();
    stage.nothing_is_lost().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_killed_are_made_again_and_lose_nothing() {
    let server = RedisServer::start();
    let stage = Stage::on(&server.url()).await;
    for _ in 0..5 {
        for kind in ["pubsub", "normal"] {
            server.cli(&["CLIENT", "KILL", "TYPE", kind]);
            stage.progress().await;
        }
    }
    stage.nothing_is_lost().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_whose_buffer_overflows_reads_on_from_history() {
    let server = RedisServer::start_with(&["--client-output-buffer-limit", "pubsub", "4kb", "4kb", "0"]);
    let url = server.url();
    let (writer, reader) = (Node::start(&url).await, Node::following(&url, &[NAME]).await);
    for round in 0..20 {
        let ids: Vec<_> = (0..64).map(|n| format!("{round}.{n}")).collect();
        writer.append_all(NAME, &ids, 2000).await;
    }
    hears_all(&reader, NAME).await;
    assert_eq!(reader.heard.of(NAME).len(), 20 * 64);
    assert!(reader.heard.resets(NAME).is_empty());
    assert!(server.log_text().contains("output buffer limits"), "no buffer ever overflowed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_stalls_and_is_cut_loses_nothing() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let stage = Stage::on(&format!("redis://127.0.0.1:{}", proxy.port())).await;
    for stalled in [50, 500, 3500] {
        proxy.stall();
        tokio::time::sleep(Duration::from_millis(stalled)).await;
        proxy.flow();
        stage.progress().await;
        proxy.cut();
        stage.progress().await;
        // What stalls and is then cut never arrives.
        proxy.stall();
        tokio::time::sleep(Duration::from_millis(stalled)).await;
        proxy.cut();
        proxy.flow();
        stage.progress().await;
    }
    stage.nothing_is_lost().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_lost_its_data_begins_another_past_and_everybody_is_told() {
    let mut server = RedisServer::start();
    let url = server.url();
    let nodes = [Node::following(&url, &[NAME]).await, Node::following(&url, &[NAME]).await];
    for n in 0..10 {
        nodes[0].append(NAME, &format!("before.{n}")).await.expect("appended");
    }
    hears_all(&nodes[1], NAME).await;
    let before = nodes[0].top(NAME).await.position;
    server.kill();
    server.restart_empty();
    // Without a single new message.
    for node in &nodes {
        wait_until("everybody is told", async || !node.heard.resets(NAME).is_empty()).await;
    }
    let after = nodes[0].top(NAME).await.position;
    assert_ne!(after.epoch, before.epoch);
    assert_eq!(after.offset, 0);
    let first = nodes[1].append(NAME, "after").await.expect("appended");
    assert_eq!((first.offset, &first.epoch), (1, &after.epoch));
    for node in &nodes {
        wait_until("it goes on", async || node.heard.all().last().is_some_and(|last| last.position == first))
            .await;
        let resets = node.heard.resets(NAME);
        assert_eq!(resets.len(), 1, "once: {resets:?}");
        assert_eq!(resets[0].position.epoch, after.epoch);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_was_set_back_begins_another_past_whoever_looks() {
    let mut server = RedisServer::start();
    let url = server.url();
    let nodes = [Node::following(&url, &[NAME]).await, Node::following(&url, &[NAME]).await];
    // One that nobody follows: only who appended there can know.
    let quiet = "plain-2";
    for name in [NAME, quiet] {
        for n in 0..10 {
            nodes[0].append(name, &format!("kept.{n}")).await.expect("appended");
        }
    }
    server.stop();
    let saved = server.save();
    server.restart();
    for name in [NAME, quiet] {
        for n in 0..5 {
            nodes[0].insist(name, &format!("lost.{n}")).await;
        }
    }
    wait_until("it is heard", async || nodes[1].heard.of(NAME).len() == 15).await;
    let before = [nodes[0].top(NAME).await.position, nodes[0].top(quiet).await.position];
    assert_eq!(before[0].offset, 15);
    server.kill();
    server.set_back(&saved);
    server.restart();
    for node in &nodes {
        wait_until("everybody is told", async || !node.heard.resets(NAME).is_empty()).await;
    }
    for (name, before) in [NAME, quiet].into_iter().zip(before) {
        wait_until("it is another past", async || {
            nodes[0].broker.top(&channel(name)).await.is_ok_and(|top| top.position.epoch != before.epoch)
        })
        .await;
        let top = nodes[1].top(name).await.position;
        assert_eq!(top.offset, 10, "what is there stays");
        let next = nodes[1].append(name, "next").await.expect("appended");
        assert_eq!((next.offset, next.epoch), (11, top.epoch));
        assert_eq!(stored(&nodes[0].broker, name).await.len(), 11);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_publishes_first_after_redis_was_set_back_gets_no_place_that_somebody_else_had() {
    let mut server = RedisServer::start();
    let node = Node::start(&server.url()).await;
    for n in 0..5 {
        node.append(NAME, &format!("kept.{n}")).await.expect("appended");
    }
    server.stop();
    let saved = server.save();
    server.restart();
    let mut had = Vec::new();
    for n in 0..5 {
        had.push(node.insist(NAME, &format!("lost.{n}")).await);
    }
    server.kill();
    server.set_back(&saved);
    server.restart();
    for n in 0..20 {
        let place = node.insist(NAME, &format!("new.{n}")).await;
        assert!(!had.contains(&place), "{place} was another message's");
    }
}
