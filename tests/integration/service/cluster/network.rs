//! The network between the servers and Redis fails in every way that a network has.

use super::*;
use crate::service::swarm::alone;
use crate::support::network::{Network, Way};
use crate::support::proxy::Proxy;
use crate::support::redis::RedisServer;
use crate::support::seed;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_on_a_network_that_drops_packets() {
    if let Err(why) = Network::is_possible() {
        return eprintln!(
            "\n!!! FELL BACK: this machine does not allow a network that drops packets ({why}). What \
             `nothing_is_lost_on_a_network_that_stalls_and_cuts` does by a proxy stands in for it.\n"
        );
    }
    let _alone = alone().await;
    let mut rng = fastrand::Rng::with_seed(seed());
    let redis = RedisServer::start_apart();
    let network = Network::to(&redis).expect("it is possible");
    let cluster = Cluster::start(&network.url(&redis), &mut rng);
    let mut crowd = Crowd::gather(&cluster.urls(), clients(), &mut rng);
    crowd.goes_on(50).await;
    let lose = |ways: &[(Way, u8)]| {
        network.clear().expect("the rules change");
        ways.iter().for_each(|(way, percent)| network.drop(*way, *percent).expect("the rules change"));
    };
    // What TCP mends: it is slower, and goes on.
    for percent in [5, rng.u8(10..25)] {
        lose(&[(Way::ToRedis, percent), (Way::FromRedis, percent)]);
        crowd.goes_on(50).await;
    }
    // What it does not: one way alone, in which Redis hears what it cannot answer, and both.
    let both = [(Way::ToRedis, 100), (Way::FromRedis, 100)];
    for gone in [&both[1..], &both[..1], &both[..]] {
        lose(gone);
        cluster.all_say(false).await;
        network.clear().expect("the rules change");
        cluster.all_say(true).await;
        crowd.goes_on(50).await;
    }
    finish(cluster, crowd, "5 to 25 of 100 packets lost, then all of them on one way or both").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_on_a_network_that_stalls_and_cuts() {
    let _alone = alone().await;
    let mut rng = fastrand::Rng::with_seed(seed());
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.port()).await;
    let cluster = Cluster::start(&format!("redis://127.0.0.1:{}", proxy.port()), &mut rng);
    let mut crowd = Crowd::gather(&cluster.urls(), clients(), &mut rng);
    crowd.goes_on(50).await;
    for _ in 0..either(6, 30) {
        match rng.u8(..4) {
            0 => proxy.cut(),
            1 => proxy.stall(),
            2 => proxy.stall_answers(),
            _ => proxy.tear(),
        }
        tokio::time::sleep(Duration::from_millis(rng.u64(50..700))).await;
        proxy.flow();
        crowd.goes_on(20).await;
    }
    for half in [true, false] {
        if half {
            proxy.stall_answers()
        } else {
            proxy.stall()
        }
        cluster.all_say(false).await;
        proxy.flow();
        cluster.all_say(true).await;
        crowd.goes_on(50).await;
    }
    finish(cluster, crowd, "stalls of one way and both, cuts between answers and in the middle of them")
        .await;
}

async fn finish(cluster: Cluster, crowd: Crowd, disturbed_by: &str) {
    let account = crowd.account(cluster.at(0)).await;
    cluster.assert_jobs_are_done(0, &account.jobs).await;
    account.print(disturbed_by);
}
