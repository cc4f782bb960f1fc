//! Schedules of a real server: fired, shown, changed while it runs, and refused with what is wrong.

use serde_json::Value;

use super::reload::reload;
use super::{Server, Site, tidings, wait_until};
use crate::support::redis::shared_url;

const SUITE: &str = "[suites.quick]\ncommand = [\"true\"]\n";

/// The jobs of a schedule, newest first.
async fn jobs_of(server: &Server, schedule: &str) -> Vec<Value> {
    let jobs = server.get("/api/v1/jobs?limit=100").await["jobs"].as_array().expect("jobs").clone();
    jobs.into_iter().filter(|job| job["name"] == schedule).collect()
}

#[tokio::test]
async fn scheduled_jobs_run_and_a_reload_changes_which() {
    let site = Site::new(&format!("{SUITE}[schedules.often]\ncron = \"* * * * * *\"\nsuite = \"quick\"\n"));
    let server = site.start();
    wait_until("two have run", async || {
        jobs_of(&server, "often").await.iter().filter(|job| job["state"] == "completed").count() >= 2
    })
    .await;
    let listed = server.get("/api/v1/schedules").await["schedules"].clone();
    assert_eq!((&listed[0]["name"], &listed[0]["timezone"]), (&"often".into(), &"UTC".into()), "{listed}");
    assert_eq!(listed[0]["config"], serde_json::json!({ "suite": "quick" }));
    let next = listed[0]["next"].as_i64().expect("a time");
    assert!(next % 1000 == 0 && (next - tidings::model::now_ms()).abs() < 60_000, "{listed}");
    let test = jobs_of(&server, "often").await[0]["testId"].as_str().expect("a test").to_owned();
    assert!(test.starts_with("often-20") && test.ends_with('Z'), "{test}");

    site.write(
        "tidings.toml",
        &format!("{SUITE}[schedules.other]\ncron = \"* * * * * *\"\nsuite = \"quick\"\n"),
    );
    reload(&server, "applied", 1).await;
    let before = jobs_of(&server, "often").await.len();
    wait_until("the other one has run", async || {
        jobs_of(&server, "other").await.iter().any(|job| job["state"] == "completed")
    })
    .await;
    assert_eq!(jobs_of(&server, "often").await.len(), before, "it is no schedule any more");
    let output = tidings(&["schedules", "--server", &server.url]).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.starts_with("other: 20") && said.contains("command {\"suite\":\"quick\"} (* * * * * * UTC)"),
        "{said}"
    );

    site.write(
        "tidings.toml",
        &format!("{SUITE}[schedules.other]\ncron = \"every day\"\nsuite = \"quick\"\n"),
    );
    reload(&server, "refused", 1).await;
    assert_eq!(server.get("/api/v1/schedules").await["schedules"][0]["cron"], "* * * * * *");
    wait_until("it says why", async || server.log().contains("is no cron expression")).await;
}

/// Which seconds had a tick, oldest first; one that was fired twice stands there twice.
async fn ticks(server: &Server) -> Vec<i64> {
    let second = |job: &Value| {
        let test = job["testId"].as_str().expect("a test");
        let tick = jiff::civil::DateTime::strptime("often-%Y%m%dT%H%M%SZ", test).expect(test);
        tick.to_zoned(jiff::tz::TimeZone::UTC).expect("a time").timestamp().as_second()
    };
    let mut ticks: Vec<_> = jobs_of(server, "often").await.iter().map(second).collect();
    ticks.sort_unstable();
    ticks
}

/// Takes some 7 s: ticks are whole seconds apart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_fire_each_tick_once_and_one_is_killed_and_comes_back() {
    let url = shared_url();
    let config = format!("{SUITE}[schedules.often]\ncron = \"* * * * * *\"\nsuite = \"quick\"\n");
    let sites = [(); 3].map(|()| Site::new(&config));
    let start = |site: &Site| site.start_with("127.0.0.1:0", &["--redis", &url]);
    let [first, mut second, third] = sites.each_ref().map(start);
    for _ in 0..2 {
        let before = ticks(&third).await.len();
        wait_until("two ticks are fired", async || ticks(&third).await.len() >= before + 2).await;
        second.kill();
        let before = ticks(&first).await.len();
        wait_until("one more is fired", async || ticks(&first).await.len() > before).await;
        second = start(&sites[1]);
    }
    let before = ticks(&second).await.len();
    wait_until("and one more", async || ticks(&second).await.len() > before).await;
    let fired = ticks(&first).await;
    let expected: Vec<i64> = (fired[0]..).take(fired.len()).collect();
    assert_eq!(fired, expected);
}

#[test]
fn what_is_wrong_with_a_schedule_is_told_with_its_place() {
    let wrong = "[suites.unit]\ncommand = [\"true\"]\n\
                 [schedules.a]\ncron = \"61 * * * *\"\nsuite = \"unit\"\n\
                 [schedules.b]\ncron = \"0 0 30 2 *\"\ntest_type = \"mine\"\n\
                 [schedules.c]\ncron = \"@daily\"\nsuite = \"unti\"\n\
                 [schedules.d]\ncron = \"@daily\"\nsuite = \"unit\"\ntimezone = \"Mars/Olympus\"\n\
                 [schedules.e]\ncron = \"@daily\"\nsuite = \"unit\"\nfails = 1\n";
    let site = Site::new(wrong);
    let output = tidings(&["check", "--config"]).arg(site.path("tidings.toml")).output().expect("it runs");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!output.status.success(), "{said}");
    for part in [
        "tidings.toml:4:8: `schedules.a.cron`",
        "\"61 * * * *\" is no cron expression",
        "tidings.toml:7:8: `schedules.b.cron`",
        "no time that will ever come",
        "tidings.toml:11:9: `schedules.c.suite`",
        "there is no section [suites.unti] for it to run",
        "`unit`",
        "tidings.toml:15:12: `schedules.d.timezone`",
        "Europe/Berlin",
        "tidings.toml:19:1: `schedules.e.fails`",
    ] {
        assert!(said.contains(part), "{part} is missing in:\n{said}");
    }
}
