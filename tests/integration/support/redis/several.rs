//! Several `redis-server` that are one: watched by a Sentinel, or a cluster.

use std::time::{Duration, Instant};

use super::{PATIENCE, RedisServer};

/// A primary and a replica, and a Sentinel that watches them.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) primary: RedisServer,
    pub(crate) replica: RedisServer,
    sentinel: RedisServer,
}

impl Watched {
    pub(crate) fn start() -> Self {
        let primary = RedisServer::start();
        let port = primary.port().to_string();
        let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port]);
        let began = Instant::now();
        while !replica.cli(&["INFO", "replication"]).contains("master_link_status:up") {
            assert!(began.elapsed() < PATIENCE, "the replica does not follow:\n{}", replica.log_text());
            std::thread::sleep(Duration::from_millis(10));
        }
        let sentinel = RedisServer::sentinel(&format!(
            "sentinel monitor main 127.0.0.1 {port} 1\nsentinel down-after-milliseconds main 1000\n\
             sentinel failover-timeout main 4000\n"
        ));
        while !sentinel.cli(&["SENTINEL", "MASTER", "main"]).contains("num-slaves\n1") {
            assert!(began.elapsed() < PATIENCE, "the Sentinel does not see the replica");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { primary, replica, sentinel }
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!("redis+sentinel://127.0.0.1:{}/main", self.sentinel.port)
    }
}

/// A cluster of primaries.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<RedisServer>,
}

impl Cluster {
    /// Three of them; the death of one leaves the slots of the others as they are.
    pub(crate) fn start() -> Self {
        let settings = [
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "1500",
            "--cluster-require-full-coverage",
            "no",
        ];
        let nodes: Vec<_> = (0..3).map(|_| RedisServer::start_with(&settings)).collect();
        let addresses: Vec<_> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        let mut command = vec!["--cluster", "create"];
        command.extend(addresses.iter().map(String::as_str));
        command.push("--cluster-yes");
        let told = nodes[0].cli(&command);
        assert!(told.contains("All 16384 slots covered"), "{told}");
        let began = Instant::now();
        for node in &nodes {
            while !node.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok") {
                assert!(began.elapsed() < PATIENCE, "no cluster:\n{}", node.log_text());
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        Self { nodes }
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        let hosts: Vec<_> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    /// A replica of one of the nodes, which is as far as that.
    pub(crate) fn replica_of(&self, n: usize) -> RedisServer {
        let replica =
            RedisServer::start_with(&["--cluster-enabled", "yes", "--cluster-node-timeout", "1500"]);
        let primary = &self.nodes[n];
        let id = primary.cli(&["CLUSTER", "MYID"]);
        assert_eq!(replica.cli(&["CLUSTER", "MEET", "127.0.0.1", &primary.port.to_string()]), "OK");
        let began = Instant::now();
        let until = |what: &str, done: &dyn Fn() -> bool| {
            while !done() {
                assert!(began.elapsed() < PATIENCE, "{what}:\n{}", replica.log_text());
                std::thread::sleep(Duration::from_millis(10));
            }
        };
        until("it is no replica", &|| replica.cli(&["CLUSTER", "REPLICATE", &id]) == "OK");
        until("it does not follow", &|| {
            replica.cli(&["INFO", "replication"]).contains("master_link_status:up")
        });
        // Only who is known to all takes over.
        let own = replica.cli(&["CLUSTER", "MYID"]);
        let knows = |node: &RedisServer| {
            let nodes = node.cli(&["CLUSTER", "NODES"]);
            nodes.lines().any(|line| line.starts_with(&own) && line.contains("slave"))
        };
        until("it is not known", &|| self.nodes.iter().all(knows));
        replica
    }

    /// The slot of a key, and which node has it.
    pub(crate) fn place_of(&self, key: &str) -> (String, usize) {
        let slot = self.nodes[0].cli(&["CLUSTER", "KEYSLOT", key]);
        let owner =
            (0..self.nodes.len()).find(|n| self.nodes[*n].cli(&["CLUSTER", "COUNTKEYSINSLOT", &slot]) != "0");
        (slot, owner.expect("the key exists"))
    }

    /// Moves a slot with all its keys while it is in use.
    pub(crate) fn move_slot(&self, slot: &str, from: usize, to: usize) {
        let id = |n: usize| self.nodes[n].cli(&["CLUSTER", "MYID"]);
        let (source, target) = (id(from), id(to));
        let ok = |n: usize, command: &[&str]| assert_eq!(self.nodes[n].cli(command), "OK", "{command:?}");
        ok(to, &["CLUSTER", "SETSLOT", slot, "IMPORTING", &source]);
        ok(from, &["CLUSTER", "SETSLOT", slot, "MIGRATING", &target]);
        let port = self.nodes[to].port.to_string();
        loop {
            let keys = self.nodes[from].cli(&["CLUSTER", "GETKEYSINSLOT", slot, "100"]);
            if keys.is_empty() {
                break;
            }
            let mut command = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            command.extend(keys.lines());
            let told = self.nodes[from].cli(&command);
            assert!(told == "OK" || told == "NOKEY", "{told}");
        }
        for n in [to, from] {
            ok(n, &["CLUSTER", "SETSLOT", slot, "NODE", &target]);
        }
    }
}
