//! External tests: registrations that claim too much, and whoever speaks for what it does not hold.

use super::super::Answer::Status;
use super::{Cells, get, post};

const JSON: &str = "content-type: application/json\r\n";

pub(super) fn rows() -> Cells {
    let register = |body: &str| post("/api/v1/tests", JSON, body);
    let report = |body: &str| post("/api/v1/tests/hostile-outside/reports", JSON, body);
    let end = |body: &str| post("/api/v1/tests/hostile-outside/end", JSON, body);
    let event = |event: &str| report(&format!("{{\"attempt\":1,\"lease\":\"x\",\"events\":[{event}]}}"));
    let resume = |lease: &str| {
        register(&format!(
            "{{\"testId\":\"t\",\"resume\":{{\"jobId\":\"job_x\",\"attempt\":1,\"lease\":\"{lease}\"}}}}"
        ))
    };
    let many = "{\"event\":\"log\",\"data\":{}},".repeat(1000);
    vec![
        ("a test under a path", register("{\"testId\":\"../x\"}"), Status(400, "testId")),
        ("a test with a lease of no time", register("{\"leaseMs\":0}"), Status(400, "leaseMs")),
        (
            "a test with a lease for ever",
            register("{\"leaseMs\":18446744073709551615}"),
            Status(400, "leaseMs"),
        ),
        ("a test before all time", register("{\"startedAt\":-1}"), Status(400, "startedAt")),
        ("a test in the future", register("{\"startedAt\":9223372036854775807}"), Status(400, "startedAt")),
        ("a test of less than no cases", register("{\"total\":-1}"), Status(400, "total")),
        (
            "a test with a script for a link",
            register("{\"url\":\"javascript:alert(1)\"}"),
            Status(400, "url"),
        ),
        ("a test with data for a link", register("{\"url\":\"data:text/html,x\"}"), Status(400, "url")),
        ("a test with a file for a link", register("{\"url\":\"file:///etc/passwd\"}"), Status(400, "url")),
        (
            "a test with a very long link",
            register(&format!("{{\"url\":\"http://t/{}\"}}", "x".repeat(3000))),
            Status(400, "url"),
        ),
        (
            "a test with a long name",
            register(&format!("{{\"name\":\"{}\"}}", "x".repeat(300))),
            Status(400, "name"),
        ),
        ("a test with a type that is none", register("{\"testType\":\"a b\"}"), Status(400, "testType")),
        ("a test with an id that is none", register("{\"id\":\"a\\nb\"}"), Status(400, "id")),
        ("a test for a team that is none", register("{\"teamId\":\"*\"}"), Status(400, "teamId")),
        ("a test with a state", register("{\"state\":\"completed\"}"), Status(400, "unknown field `state`")),
        ("a test as a list", register("[]"), Status(400, "has to be a JSON object")),
        ("a lease that nobody gave", resume("x"), Status(409, "stale_attempt")),
        ("a lease like one of ours", resume("job_x~1~1~30000~00000000"), Status(409, "stale_attempt")),
        ("a lease of another job", resume("job_y~1~1~30000~00000000"), Status(409, "stale_attempt")),
        (
            "a lease with numbers beyond numbers",
            resume("job_x~99999999999~-1~1e9~"),
            Status(409, "stale_attempt"),
        ),
        (
            "a lease of NUL",
            register(
                "{\"testId\":\"t\",\"resume\":{\"jobId\":\"job_x\",\"attempt\":1,\"lease\":\"\\u0000\"}}",
            ),
            Status(409, "stale_attempt"),
        ),
        (
            "a resumption of no test",
            register("{\"resume\":{\"jobId\":\"job_x\",\"attempt\":1,\"lease\":\"x\"}}"),
            Status(400, "testId"),
        ),
        (
            "a report on no test",
            report("{\"attempt\":1,\"lease\":\"x\",\"events\":[]}"),
            Status(404, "test_not_found"),
        ),
        (
            "a report without a lease",
            report("{\"attempt\":1,\"events\":[]}"),
            Status(400, "missing field `lease`"),
        ),
        (
            "a report of attempt minus one",
            report("{\"attempt\":-1,\"lease\":\"x\",\"events\":[]}"),
            Status(400, "attempt"),
        ),
        (
            "a report of the end",
            event("{\"event\":\"test:completed\",\"data\":{}}"),
            Status(400, "unknown_event"),
        ),
        (
            "a report of another job's end",
            event("{\"event\":\"queue:job:completed\",\"data\":{}}"),
            Status(400, "unknown_event"),
        ),
        (
            "a report for another test",
            report("{\"attempt\":1,\"lease\":\"x\",\"events\":[],\"testId\":\"other\"}"),
            Status(400, "unknown field `testId`"),
        ),
        (
            "a report of progress as a list",
            event("{\"event\":\"progress\",\"data\":[50]}"),
            Status(400, "events[0]"),
        ),
        (
            "a report of progress beyond all",
            event("{\"event\":\"progress\",\"data\":{\"progress\":1e308}}"),
            Status(400, "events[0]"),
        ),
        (
            "a report with an id that is none",
            event("{\"id\":\"a b\",\"event\":\"progress\",\"data\":{\"progress\":1}}"),
            Status(400, "events[0]"),
        ),
        ("a report of a thousand and one things", event(&format!("{many}1")), Status(400, "events[1000]")),
        ("a reading of reports", get("/api/v1/tests/x/reports"), Status(405, "method_not_allowed")),
        (
            "an end of no test",
            end("{\"attempt\":1,\"lease\":\"x\",\"outcome\":\"passed\"}"),
            Status(404, "test_not_found"),
        ),
        (
            "an end that is none",
            end("{\"attempt\":1,\"lease\":\"x\",\"outcome\":\"won\"}"),
            Status(400, "outcome"),
        ),
        (
            "an end before the beginning",
            end("{\"attempt\":1,\"lease\":\"x\",\"outcome\":\"passed\",\"durationMs\":-5}"),
            Status(400, "durationMs"),
        ),
        (
            "an end with failures that are none",
            end("{\"attempt\":1,\"lease\":\"x\",\"outcome\":\"failed\",\"failures\":[1]}"),
            Status(400, "failures[0]"),
        ),
    ]
}
