//! Connecting, scripts, and how the connection comes back.

use std::time::{Duration, Instant};

use redis::cmd;
use tidings::redis::{Redis, RedisFault, RedisOptions, RedisUrl, Script, Status};
use tidings::tasks::Tasks;

use crate::support::redis::{RedisServer, cli, connect, free_port, shared_url};
use crate::support::{DEADLINE, in_time, wait_until};

const COUNT: &str = "#!lua\nreturn redis.call('INCRBY', KEYS[1], ARGV[1])";

fn options(url: &str) -> RedisOptions {
    RedisOptions::new(RedisUrl::parse(url).expect("a URL"))
}

async fn get(redis: &Redis, key: &str) -> Result<Option<i64>, RedisFault> {
    redis.query(cmd("GET").arg(key)).await
}

#[tokio::test]
async fn a_script_runs_once_whether_redis_knows_it_or_not() {
    let (redis, _tasks) = connect(&shared_url()).await;
    let key = redis.key("s", "n");
    let script = Script::new(COUNT);
    for n in 1..=3_i64 {
        if n == 2 {
            let _: () = redis.query(cmd("SCRIPT").arg("FLUSH")).await.expect("flushed");
        }
        let answer: i64 = redis.call(script.call(&[&key]).arg(2)).await.expect("an answer");
        assert_eq!(answer, n * 2);
    }
}

#[tokio::test]
async fn many_commands_share_one_connection_without_mixing_their_answers() {
    let server = RedisServer::start();
    let (redis, _tasks) = connect(&server.url()).await;
    let asking = (0..2000_i64).map(|n| {
        let redis = redis.clone();
        tokio::spawn(async move { (n, redis.query::<i64>(cmd("ECHO").arg(n)).await.expect("an answer")) })
    });
    for asked in asking.collect::<Vec<_>>() {
        let (n, answer) = asked.await.expect("it ends");
        assert_eq!(n, answer);
    }
    let clients = server.cli(&["CLIENT", "LIST"]);
    let ours =
        clients.lines().filter(|line| line.contains("lib-name=redis") || line.contains("cmd=echo")).count();
    assert_eq!(ours, 1, "{clients}");
}

#[tokio::test]
async fn where_nothing_listens_the_start_says_so_in_time() {
    let began = Instant::now();
    let tasks = Tasks::new();
    let nobody = format!("redis://127.0.0.1:{}", free_port());
    let fault = Redis::connect(options(&nobody), &tasks).await.expect_err("nobody is there");
    assert!(matches!(fault, RedisFault::Away(_)), "{fault}");
    assert!(began.elapsed() < DEADLINE);
}

#[tokio::test]
async fn a_wrong_password_is_refused_at_once_and_said() {
    let server = RedisServer::start();
    server.cli(&["ACL", "SETUSER", "me", "on", ">right", "~*", "&*", "+@all"]);
    let url = format!("redis://me:wrong@127.0.0.1:{}", server.port());
    let fault = Redis::connect(options(&url), &Tasks::new()).await.expect_err("it is wrong");
    assert!(matches!(fault, RedisFault::Refused(_)), "{fault:?}");
    let url = format!("redis://me:right@127.0.0.1:{}", server.port());
    let (redis, _tasks) = connect(&url).await;
    assert_eq!(get(&redis, "nothing").await.expect("an answer"), None);
}

#[tokio::test]
async fn a_replica_is_no_place_to_write_to() {
    let primary = RedisServer::start();
    let port = primary.port().to_string();
    let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port]);
    let fault = Redis::connect(options(&replica.url()), &Tasks::new()).await.expect_err("it is a replica");
    assert!(matches!(fault, RedisFault::ReadOnly(_)), "{fault:?}");
}

#[tokio::test]
async fn a_killed_redis_is_told_of_and_found_again() {
    let mut server = RedisServer::start();
    let (redis, _tasks) = connect(&server.url()).await;
    let status = redis.status();
    let Status::Up(first) = status.borrow().clone() else { panic!("it is up") };
    let _: () = redis.query(cmd("SET").arg("n").arg(7)).await.expect("set");
    server.kill();
    wait_until("it is told", async || matches!(*status.borrow(), Status::Down(_))).await;
    let fault = in_time("a refusal", get(&redis, "n")).await.expect_err("nobody is there");
    assert!(matches!(fault, RedisFault::Away(_)), "{fault:?}");
    server.restart();
    wait_until("it is back", async || matches!(*status.borrow(), Status::Up(_))).await;
    assert_eq!(get(&redis, "n").await, Ok(Some(7)), "what was acknowledged is there");
    let Status::Up(second) = status.borrow().clone() else { panic!("it is up") };
    assert_ne!(first, second, "another process, which may have lost something");
}

#[tokio::test]
async fn a_redis_that_comes_back_without_its_data_is_another_one() {
    let mut server = RedisServer::start();
    let (redis, _tasks) = connect(&server.url()).await;
    let mut status = redis.status();
    let Status::Up(first) = status.borrow_and_update().clone() else { panic!("it is up") };
    let _: () = redis.query(cmd("SET").arg("n").arg(7)).await.expect("set");
    server.stop();
    server.restart_empty();
    let other = |status: &Status| matches!(status, Status::Up(second) if *second != first);
    in_time("it is back", status.wait_for(other)).await.expect("it is watched");
    assert_eq!(get(&redis, "n").await, Ok(None));
}

#[tokio::test]
async fn a_redis_that_hangs_holds_nobody_for_long() {
    let server = RedisServer::start();
    let tasks = Tasks::new();
    let mut options = options(&server.url());
    options.response = Duration::from_millis(300);
    let redis = Redis::connect(options, &tasks).await.expect("it is there");
    server.pause();
    let began = Instant::now();
    let asking = (0..50).map(|_| {
        let redis = redis.clone();
        tokio::spawn(async move { get(&redis, "n").await.expect_err("it hangs") })
    });
    for asked in asking.collect::<Vec<_>>() {
        let fault = asked.await.expect("it ends");
        assert!(matches!(fault, RedisFault::Slow(_) | RedisFault::Away(_)), "{fault:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    server.resume();
    wait_until("it answers", async || get(&redis, "n").await.is_ok()).await;
}

#[tokio::test]
async fn without_room_a_script_changes_nothing() {
    let server = RedisServer::start_with(&["--maxmemory", "3mb", "--maxmemory-policy", "noeviction"]);
    let (redis, _tasks) = connect(&server.url()).await;
    let block = "x".repeat(100_000);
    let script =
        Script::new("#!lua\nredis.call('INCR', KEYS[1]); redis.call('RPUSH', KEYS[2], ARGV[1]); return 1");
    let keys = [redis.key("a", "n"), redis.key("a", "l")];
    let mut done = 0;
    let fault = loop {
        match redis.call::<i64>(script.call(&keys).arg(&block)).await {
            Ok(_) => done += 1,
            Err(fault) => break fault,
        }
        assert!(done < 1000, "it never fills up");
    };
    assert!(matches!(fault, RedisFault::Full(_)), "{fault:?}");
    assert_eq!(get(&redis, &keys[0]).await, Ok(Some(done)));
    assert_eq!(redis.query::<i64>(cmd("LLEN").arg(&keys[1])).await, Ok(done));
}

#[tokio::test]
async fn what_a_newer_version_laid_out_is_refused_also_after_it_came_while_we_were_away() {
    let mut server = RedisServer::start();
    let (redis, tasks) = connect(&server.url()).await;
    let key = redis.key("meta", "layout");
    assert_eq!(server.cli(&["GET", &key]), "3", "it is marked");
    server.cli(&["SET", &key, "1"]);
    connect(&server.url()).await;
    assert_eq!(server.cli(&["GET", &key]), "3", "an older one is read, and is of this version from now on");
    // Another prefix is another world.
    server.cli(&["SET", &key, "4"]);
    let _other = connect(&format!("{}?prefix=other", server.url())).await;
    let refused = Redis::connect(options(&server.url()), &Tasks::new()).await.expect_err("it is newer");
    assert!(matches!(refused, RedisFault::Unsuitable(_)), "{refused}");
    assert!(refused.to_string().contains("has the layout 4"), "{refused}");
    server.stop();
    server.restart();
    wait_until("the one that ran before refuses it, too", async || {
        matches!(&*redis.status().borrow(), Status::Down(RedisFault::Unsuitable(_)))
    })
    .await;
    server.cli(&["SET", &key, "1"]);
    wait_until("it works again", async || matches!(&*redis.status().borrow(), Status::Up(_))).await;
    assert!(tasks.stop(DEADLINE).await);
}

/// What the next one starts, and kills.
#[test]
#[ignore = "it waits to be killed"]
fn a_process_that_started_a_redis_and_waits() {
    let server = RedisServer::start();
    let sentinel = shared_url();
    println!("started {} {sentinel}", server.pid());
    loop {
        std::thread::park();
    }
}

#[tokio::test]
async fn a_killed_test_leaves_no_redis_behind() {
    let itself = std::env::current_exe().expect("a path");
    let mut child = std::process::Command::new(itself)
        .args([
            "--exact",
            "redis::ground::a_process_that_started_a_redis_and_waits",
            "--ignored",
            "--nocapture",
        ])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("it starts");
    let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().expect("piped")));
    let told = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("started ").map(str::to_owned));
    let told = told.expect("it tells");
    let (pid, shared) = told.split_once(' ').expect("two things");
    let port: u16 =
        shared.trim_start_matches("redis://127.0.0.1:").split('?').next().unwrap().parse().expect("a port");
    assert_eq!(cli(port, &["PING"]), "PONG");
    child.kill().expect("it is killed");
    child.wait().expect("it is reaped");
    let stat = format!("/proc/{pid}/stat");
    // One that is dead and not reaped yet counts as gone.
    wait_until("its own Redis is gone", async || {
        std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "))
    })
    .await;
    wait_until("the one that its tests shared is gone", async || cli(port, &["PING"]).is_empty()).await;
}
