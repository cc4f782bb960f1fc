//! What a test command gets to know of the server that runs it: nothing that is secret.

use std::collections::BTreeSet;

use super::Site;

/// Variables of the server that a command has no business with: our own settings, and what else a host may have.
const SECRETS: [&str; 6] = [
    "TIDINGS_TOKEN",
    "REDIS_URL",
    "DATABASE_URL",
    "AWS_SECRET_ACCESS_KEY",
    "GITHUB_TOKEN",
    "LD_LIBRARY_PATH",
];
const SECRET: &str = "kept-from-every-command";

#[tokio::test]
async fn a_command_learns_no_secret_of_its_server() {
    let site = Site::new(
        "[suites.look]\ncommand = ['sh', 'look.sh']\ncwd = '.'\nenv = { GIVEN = 'yes' }\npass_env = ['PASSED']\n\
         params = { CHOSEN = ['one'] }\n",
    );
    // Its own environment, and that of the guard, which it could read.
    site.write(
        "look.sh",
        "tr '\\0' '\\n' < /proc/self/environ > own\ntr '\\0' '\\n' < /proc/$PPID/environ > guards\n",
    );
    let mut command = site.command(&["serve", "--listen", "127.0.0.1:0"]);
    command.env("PASSED", "on");
    // A setting by the environment, as those of a Redis or a key are.
    command.env("TIDINGS_REDIS__PREFIX", SECRET);
    command.envs(SECRETS.map(|name| (name, SECRET)));
    let server = super::Server::spawn(&mut command);
    let job = serde_json::json!({"testType": "command", "testId": "look",
        "config": {"suite": "look", "params": {"CHOSEN": "one"}}});
    let answer = server.post("/api/v1/jobs", &job).await;
    let ended = server.wait_for_job(answer["jobId"].as_str().expect("an id"), "completed").await;
    for file in ["own", "guards"] {
        let seen = std::fs::read_to_string(site.path(file)).expect("it looked");
        assert!(!seen.contains(SECRET), "{file}: {seen}");
        let names: BTreeSet<&str> =
            seen.lines().filter_map(|line| line.split_once('=')).map(|(n, _)| n).collect();
        let expected =
            ["GIVEN", "PASSED", "CHOSEN", "PATH", "TIDINGS_TEST_ID", "TIDINGS_JOB_ID", "TIDINGS_ATTEMPT"];
        assert!(expected.iter().all(|name| names.contains(name)), "{file}: {names:?}");
        let usual = ["HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR"];
        // What a shell sets by itself.
        let shells = ["PWD", "OLDPWD", "SHLVL", "_"];
        let known = |name: &&str| {
            expected.contains(name)
                || usual.contains(name)
                || shells.contains(name)
                || name.starts_with("LC_")
        };
        assert!(names.iter().all(known), "{file}: {names:?}");
    }
    // Nor does anybody learn it from what is told of the job.
    assert!(!ended.to_string().contains(SECRET));
    assert!(!server.text("/metrics").await.contains(SECRET));
}
