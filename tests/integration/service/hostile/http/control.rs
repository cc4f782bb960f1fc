//! Control of the queue, of jobs and schedules: who pauses, reorders or repeats what is not there.

use super::super::Answer::Status;
use super::{Cells, get, post, request};

const JSON: &str = "content-type: application/json\r\n";

pub(super) fn rows() -> Cells {
    let pause = |body: &str| post("/api/v1/queue/pause", JSON, body);
    let resume = |body: &str| post("/api/v1/queue/resume", JSON, body);
    let priority = |body: &str| post("/api/v1/jobs/job_x/priority", JSON, body);
    let rerun = |body: &str| post("/api/v1/jobs/job_x/rerun", JSON, body);
    let long = "x".repeat(300);
    let mut cells: Cells = vec![
        ("a pause of a type that is a path", pause("{\"testType\":\"../x\"}"), Status(400, "testType")),
        ("a pause of a number", pause("{\"testType\":1}"), Status(400, "testType")),
        ("a pause of all types", pause("{\"testType\":\"*\"}"), Status(400, "testType")),
        ("a pause of a suite without a name", pause("{\"suite\":\"\"}"), Status(400, "1 to 256 bytes")),
        (
            "a pause of a suite with a long name",
            pause(&format!("{{\"suite\":\"{long}\"}}")),
            Status(400, "1 to 256 bytes"),
        ),
        (
            "a pause of a suite of another type",
            pause("{\"testType\":\"stress\",\"suite\":\"one\"}"),
            Status(400, "only jobs of the test type `command`"),
        ),
        ("a pause in somebody's name", pause("{\"by\":\"root\"}"), Status(400, "unknown field `by`")),
        (
            "a pause with a long reason",
            pause(&format!("{{\"reason\":\"{}\"}}", "\u{e4}".repeat(1001))),
            Status(400, "at most 1000 characters"),
        ),
        ("a pause as a list", pause("[\"command\",null,null]"), Status(400, "has to be a JSON object")),
        ("a pause as an empty list", pause("[]"), Status(400, "has to be a JSON object")),
        ("a pause of nothing", pause("null"), Status(400, "has to be a JSON object")),
        (
            "a pause by nobody",
            post("/api/v1/queue/pause", "x-user-id: a/b\r\n", ""),
            Status(400, "invalid_user"),
        ),
        ("a queue paused by a GET", get("/api/v1/queue/pause"), Status(405, "method_not_allowed")),
        (
            "a queue that is taken away",
            request("DELETE /api/v1/queue", "", ""),
            Status(405, "method_not_allowed"),
        ),
        ("a resumption with a reason", resume("{\"reason\":\"x\"}"), Status(400, "unknown field `reason`")),
        ("a resumption of a list of suites", resume("{\"suite\":[\"one\"]}"), Status(400, "suite")),
        (
            "a resumption as a form",
            post("/api/v1/queue/resume", "content-type: application/x-www-form-urlencoded\r\n", "suite=one"),
            Status(415, "unsupported_media_type"),
        ),
        ("a priority above all", priority("{\"priority\":5}"), Status(400, "priority")),
        ("a priority below all", priority("{\"priority\":0}"), Status(400, "priority")),
        ("a priority beyond numbers", priority("{\"priority\":1e999}"), Status(400, "")),
        ("half a priority", priority("{\"priority\":2.5}"), Status(400, "priority")),
        ("no priority", priority("{}"), Status(400, "missing field `priority`")),
        ("a priority without a body", priority(""), Status(400, "invalid_json")),
        ("a priority of no job", priority("{\"priority\":4}"), Status(404, "job_not_found")),
        (
            "a priority of what is no name",
            post("/api/v1/jobs/..%2f..%2fjob_x/priority", JSON, "{\"priority\":4}"),
            Status(400, "invalid_path"),
        ),
        ("a rerun of no job", rerun(""), Status(404, "job_not_found")),
        ("a rerun of the cases of no job", rerun("{\"failedOnly\":true}"), Status(404, "job_not_found")),
        ("a rerun of perhaps", rerun("{\"failedOnly\":\"yes\"}"), Status(400, "failedOnly")),
        ("a rerun under a path", rerun("{\"testId\":\"../x\"}"), Status(400, "testId")),
        (
            "a rerun of a command of the sender's own",
            rerun("{\"command\":[\"id\"]}"),
            Status(400, "unknown field `command`"),
        ),
        (
            "a rerun of cases of the sender's own",
            rerun("{\"failedOnly\":true,\"only\":[\"$(id)\"]}"),
            Status(400, "unknown field `only`"),
        ),
        (
            "a rerun with another config",
            rerun("{\"config\":{\"suite\":\"two\"}}"),
            Status(400, "unknown field `config`"),
        ),
        (
            "cases of the sender's own in a job",
            post(
                "/api/v1/jobs",
                JSON,
                "{\"testType\":\"command\",\"config\":{\"suite\":\"one\",\"only\":[\"$(id)\"]}}",
            ),
            Status(400, "only"),
        ),
        (
            "a dedupe key of a schedule",
            post(
                "/api/v1/jobs",
                JSON,
                "{\"testType\":\"command\",\"config\":{\"suite\":\"one\"},\"dedupeKey\":\"schedule:nightly:1\"}",
            ),
            Status(400, "schedule:"),
        ),
        ("a retry of no job", post("/api/v1/jobs/job_x/retry", "", ""), Status(404, "job_not_found")),
        (
            "a cancellation for a number",
            post("/api/v1/jobs/job_x/cancel", JSON, "{\"reason\":1}"),
            Status(400, "reason"),
        ),
        (
            "a cancellation in somebody's name",
            post("/api/v1/jobs/job_x/cancel", JSON, "{\"cancelledBy\":\"root\"}"),
            Status(400, "unknown field `cancelledBy`"),
        ),
        (
            "a queue with a query that is none",
            get("/api/v1/queue?paused[]=%ff&__proto__=1"),
            Status(200, "\"paused\":[]"),
        ),
        (
            "schedules for nobody",
            request("GET /api/v1/schedules", "x-user-id: a/b\r\n", ""),
            Status(400, "invalid_user"),
        ),
        ("a schedule from outside", post("/api/v1/schedules", JSON, "{}"), Status(405, "method_not_allowed")),
        ("a schedule in the path", get("/api/v1/schedules/..%2f"), Status(404, "not_found")),
    ];
    for (name, job) in [
        ("a rerun of NUL", "%00"),
        ("a rerun of what is no UTF-8", "%ff"),
        ("a rerun of a pattern", "job_*"),
        ("a rerun of a line break", "job%0d%0aset-cookie:x"),
    ] {
        cells.push((name, post(&format!("/api/v1/jobs/{job}/rerun"), "", ""), Status(400, "invalid_path")));
    }
    cells
}
