//! A server and a worker die in the middle.

use super::*;
use crate::service::swarm::alone;
use crate::support::redis::RedisServer;
use crate::support::seed;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_message_reaches_everybody_once_and_in_order_though_a_server_and_a_worker_die() {
    let _alone = alone().await;
    let mut rng = fastrand::Rng::with_seed(seed());
    let redis = RedisServer::start();
    let mut cluster = Cluster::start(&redis.url(), &mut rng);
    let mut crowd = Crowd::gather(&cluster.urls(), clients(), &mut rng);
    crowd.goes_on(either(150, 1500)).await;
    let (server, worker) = (rng.usize(..SERVERS), rng.usize(..WORKERS));
    cluster.kill_server(server);
    crowd.goes_on(either(50, 500)).await;
    cluster.kill_worker(worker);
    crowd.goes_on(either(150, 1500)).await;
    let left = (server + 1) % SERVERS;
    let account = crowd.account(cluster.at(left)).await;
    cluster.assert_jobs_are_done(left, &account.jobs).await;
    assert!(account.connections > clients() as u64, "those of the dead server came back");
    account.print("a killed server and a killed worker");
}
