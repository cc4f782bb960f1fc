//! Every server is restarted in turn, by SIGTERM, while the others serve.

use super::*;
use crate::service::swarm::alone;
use crate::support::redis::RedisServer;
use crate::support::seed;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_misses_anything_while_every_server_and_worker_is_restarted_in_turn() {
    let _alone = alone().await;
    let mut rng = fastrand::Rng::with_seed(seed());
    let redis = RedisServer::start();
    let mut cluster = Cluster::start(&redis.url(), &mut rng);
    let mut crowd = Crowd::gather(&cluster.urls(), clients(), &mut rng);
    crowd.goes_on(100).await;
    let mut longest = Duration::ZERO;
    for n in 0..SERVERS {
        // As a balancer would, so that it drains before it goes.
        assert!(cluster.at(n).text("/readyz").await.contains("\"ok\""));
        let (server, began) = (cluster.servers[n].take().expect("it runs"), Instant::now());
        tokio::task::block_in_place(|| server.terminate());
        longest = longest.max(began.elapsed());
        // It answered until then; and the others do.
        crowd.goes_on(50).await;
        cluster.servers[n] = Some(cluster.server(n));
        if n < WORKERS {
            cluster.restart_worker(n);
        }
        crowd.goes_on(50).await;
    }
    let account = crowd.account(cluster.at(0)).await;
    cluster.assert_jobs_are_done(0, &account.jobs).await;
    for (job, _) in &account.jobs {
        // Handed back is not lost: no attempt was found dead by its lease.
        let told = cluster.at(0).history(&format!("job-status-{job}")).await;
        assert!(!told.messages.iter().any(|m| m["data"]["error"]["code"] == "worker_lost"), "{told:?}");
    }
    let moved = account.connections - clients() as u64;
    assert!(moved >= clients() as u64, "every server had clients: {moved}");
    assert_eq!(account.farewells, moved, "nobody lost a server without having been told");
    account.print(&format!("restarts of every server (at most {longest:?} to go)"));
}
