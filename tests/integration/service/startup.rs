//! What goes wrong at the start is said clearly: what, where, and what to do.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use super::{Site, tidings};

/// The exit code and what was said.
fn failure(command: &mut Command) -> (i32, String) {
    let output = command.output().expect("the program runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("panicked"), "{said}");
    (output.status.code().expect("an exit code"), said)
}

fn assert_says(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "`{part}` is missing in: {said}");
    }
}

#[test]
fn a_port_in_use_is_named_with_the_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let site = Site::new("");
    let (code, said) = failure(&mut site.command(&["serve", "--listen", &address]));
    assert_eq!(code, 1, "{said}");
    assert_says(&said, &[&address, "--listen"]);
    assert!(!site.path("data").exists(), "a server that cannot listen leaves no trace");
}

#[test]
fn a_data_directory_that_cannot_be_used_is_named() {
    let site = Site::new("");
    site.write("data", "a file where the directory should be");
    let (code, said) = failure(&mut site.command(&["serve", "--listen", "127.0.0.1:0"]));
    assert_eq!(code, 1, "{said}");
    assert_says(&said, &["data", "--data-dir"]);
}

#[tokio::test]
async fn a_second_server_on_the_same_data_is_refused() {
    let site = Site::new("");
    let _first = site.start();
    let (code, said) = failure(&mut site.command(&["serve", "--listen", "127.0.0.1:0"]));
    assert_eq!(code, 1, "{said}");
    assert_says(&said, &["in use by another tidings", "--data-dir"]);
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused_and_left_alone() {
    let site = Site::new("");
    site.start().kill();
    let file = site.path("data").join("tidings.db");
    let database = rusqlite::Connection::open(&file).expect("the database opens");
    database.pragma_update(None, "user_version", 999).expect("updated");
    drop(database);
    let (code, said) = failure(&mut site.command(&["serve", "--listen", "127.0.0.1:0"]));
    assert_eq!(code, 1, "{said}");
    assert_says(&said, &["999", "newer"]);
    let database = rusqlite::Connection::open(&file).expect("the database opens");
    let version: i64 =
        database.pragma_query_value(None, "user_version", |row| row.get(0)).expect("a version");
    assert_eq!(version, 999);
}

#[test]
fn a_file_that_is_no_database_of_ours_is_left_alone() {
    let site = Site::new("");
    std::fs::create_dir(site.path("data")).expect("a directory");
    site.write("data/tidings.db", &"this is somebody's diary\n".repeat(100));
    let (code, said) = failure(&mut site.command(&["serve", "--listen", "127.0.0.1:0"]));
    assert_eq!(code, 1, "{said}");
    assert_says(&said, &["tidings.db", "not a database of tidings"]);
    let kept = std::fs::read_to_string(site.path("data/tidings.db")).expect("it is still there");
    assert!(kept.starts_with("this is somebody's diary"));
}

#[test]
fn mistakes_in_the_configuration_are_told_together_with_their_places() {
    let site = Site::new("lissten = 1\n\n[queue]\nlease = \"soon\"\n");
    let (code, said) = failure(&mut site.command(&["serve"]));
    assert_eq!(code, 64, "{said}");
    assert_says(&said, &["tidings.toml:1", "lissten", "tidings.toml:4", "queue.lease"]);
}

#[test]
fn an_address_for_everybody_is_refused_without_authentication() {
    let site = Site::new("");
    let (code, said) = failure(&mut site.command(&["serve", "--listen", "0.0.0.0:0"]));
    assert_eq!(code, 64, "{said}");
    assert_says(&said, &["0.0.0.0", "127.0.0.1", "authentication"]);
}

#[test]
fn check_reports_every_mistake_of_both_files_at_once() {
    let site = Site::new("[queue]\nlease = \"soon\"\n");
    site.write("channels.toml", "[channel.a]\npattern = \"a-{x}\"\nevents = []\n\n[channel.b]\npattern = \"a-b\"\nevents = [\"x\"]\nsize = 1\n");
    let mut check = tidings(&["check", "--config"]);
    check.arg(site.path("tidings.toml")).arg("--channels").arg(site.path("channels.toml"));
    let (code, said) = failure(&mut check);
    assert_eq!(code, 64, "{said}");
    assert_says(&said, &["queue.lease", "channels.toml:6", "channels.toml:8", "size"]);

    let mut check = tidings(&["check", "--config"]);
    site.write("tidings.toml", "");
    check.arg(site.path("tidings.toml"));
    let output = check.output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_wrong_flag_is_a_matter_of_usage() {
    let (code, said) = failure(&mut tidings(&["serve", "--lissten", "x"]));
    assert_eq!(code, 2, "{said}");
    assert_says(&said, &["--listen"]);
}

#[test]
fn every_metric_exists_before_it_is_counted_for_the_first_time() {
    let site = Site::new("");
    let server = site.start();
    let mut stream = TcpStream::connect(server.url.trim_start_matches("http://")).expect("a connection");
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("a request");
    let mut metrics = String::new();
    stream.read_to_string(&mut metrics).expect("an answer");
    let described: Vec<_> = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    for name in ["tidings_publications_total counter", "tidings_http_requests_total counter"] {
        assert!(described.contains(&name), "{name} is missing in:\n{metrics}");
    }
    assert!(metrics.contains(r#"{namespace="system-alerts",priority="critical"} 0"#), "{metrics}");
}

#[test]
fn a_suite_that_cannot_be_who_it_is_to_be_is_a_bad_configuration() {
    let site = Site::new("[suites.unit]\ncommand = ['true']\nuser = 'no-such-user-here'\n");
    let (code, said) = failure(&mut site.command(&["serve", "--listen", "127.0.0.1:0"]));
    assert_eq!(code, 64, "{said}");
    let remedy = if rustix::process::geteuid().is_root() { "`no-such-user-here`" } else { "runs as root" };
    assert_says(&said, &["suites.unit", "user", remedy]);
}
