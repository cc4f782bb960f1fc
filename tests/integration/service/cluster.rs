//! Three servers, two workers, 300 clients and one Redis: everybody gets everything once and in order, whoever dies,
//! whoever is restarted, and whatever the network to Redis does.

mod crowd;
mod dying;
mod network;
mod rolling;

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use self::crowd::Crowd;
use super::swarm::{CHANNELS, either, lasting_address};
use super::{Server, Site, tidings, wait_until};

const SERVERS: usize = 3;
const WORKERS: usize = 2;

/// What the servers and workers have in common. The lease is short, so that the job of a dead worker is soon another's.
const SETTINGS: &str = r#"
[log]
level = "warn"
[queue]
lease = "2s"
backoff_base = "10ms"
[shutdown]
drain = "1s"
attempts = "500ms"
[suites.short]
command = ["sh", "-c", "sleep 0.2"]
"#;

/// Servers and workers on one Redis.
struct Cluster {
    site: Site,
    redis: String,
    addresses: Vec<String>,
    servers: Vec<Option<Server>>,
    workers: Vec<Option<Child>>,
}

impl Cluster {
    fn start(redis: &str, rng: &mut fastrand::Rng) -> Self {
        let site = Site::new(SETTINGS);
        // Those of the proofs, and those that jobs are told in.
        let own = CHANNELS.split_once("[channel.story]").expect("it begins there").1;
        let builtin = include_str!("../../../channels.toml");
        let history = "history = { size = 200000, ttl = \"1d\" }";
        let own = own.replace("events =", &format!("{history}\nevents ="));
        site.write("channels.toml", &format!("{builtin}\n[channel.story]{own}"));
        let addresses = (0..SERVERS).map(|_| lasting_address(rng)).collect();
        let redis = redis.to_owned();
        let mut cluster = Self { site, redis, addresses, servers: Vec::new(), workers: Vec::new() };
        cluster.servers = (0..SERVERS).map(|n| Some(cluster.server(n))).collect();
        cluster.workers = (0..WORKERS).map(|_| Some(cluster.worker())).collect();
        cluster
    }

    fn arguments(&self, command: &str) -> std::process::Command {
        let mut command = tidings(&[command, "--redis", &self.redis]);
        command.arg("--config").arg(self.site.path("tidings.toml"));
        command.arg("--channels").arg(self.site.path("channels.toml"));
        command
    }

    fn server(&self, n: usize) -> Server {
        let mut command = self.arguments("serve");
        command.args(["--no-worker", "--listen", &self.addresses[n]]);
        command.arg("--data-dir").arg(self.site.path(&format!("data-{n}")));
        tokio::task::block_in_place(|| Server::spawn(&mut command))
    }

    fn worker(&self) -> Child {
        let mut command = self.arguments("worker");
        command.args(["--concurrency", "4"]).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("a worker starts")
    }

    fn urls(&self) -> Vec<String> {
        self.addresses.iter().map(|address| format!("http://{address}")).collect()
    }

    fn at(&self, n: usize) -> &Server {
        self.servers[n].as_ref().expect("it runs")
    }

    fn kill_server(&mut self, n: usize) {
        self.servers[n].take().expect("it runs").kill();
    }

    fn kill_worker(&mut self, n: usize) {
        let mut worker = self.workers[n].take().expect("it runs");
        worker.kill().expect("it is killed");
        worker.wait().expect("it is reaped");
    }

    /// SIGTERM, and another one in its place.
    fn restart_worker(&mut self, n: usize) {
        let mut worker = self.workers[n].take().expect("it runs");
        kill_process(Pid::from_child(&worker), Signal::TERM).expect("signalled");
        let status = tokio::task::block_in_place(|| worker.wait()).expect("it is reaped");
        assert!(status.success(), "{status}");
        self.workers[n] = Some(self.worker());
    }

    /// Waits until every server says on `/readyz` that it is, or is not, ready.
    async fn all_say(&self, ready: bool) {
        for server in self.servers.iter().flatten() {
            let says = async || server.text("/readyz").await.contains(r#""status":"ok""#) == ready;
            wait_until(if ready { "it is ready" } else { "it is not ready" }, says).await;
        }
    }

    /// Every job has ended well, is told of to its end in its own channel, and its test was completed once.
    async fn assert_jobs_are_done(&self, n: usize, jobs: &[(String, String)]) {
        let server = self.at(n);
        for (job, test) in jobs {
            server.wait_for_job(job, "completed").await;
            let told = format!("test-progress-{test}");
            wait_until("its end is told", async || server.history(&told).await.count("test:completed") > 0)
                .await;
            let story = server.history(&told).await;
            story.assert_unbroken();
            assert_eq!(story.count("test:completed"), 1, "{test}");
            assert_eq!(story.messages.last().expect("an end")["event"], "test:completed", "{test}");
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for worker in self.workers.iter_mut().flatten() {
            let _ = worker.kill();
            let _ = worker.wait();
        }
    }
}

/// How long everything may take after the last message.
const PATIENCE: Duration = Duration::from_secs(60);

fn clients() -> usize {
    either(300, 1000)
}
