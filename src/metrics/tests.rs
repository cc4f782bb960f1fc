//! What `/metrics` shows.

use super::*;

#[test]
fn what_is_counted_here_is_rendered_once_beside_what_the_recorder_knows() {
    let handle = install().unwrap();
    delivered(Priority::Critical, Some(3), 7);
    delivered(Priority::Critical, None, 2);
    flushed(7, 1);
    let text = render(&handle);
    for name in ["tidings_delivery_latency_seconds", "tidings_batch_messages", "tidings_job_wait_seconds"] {
        assert_eq!(text.matches(&format!("# TYPE {name} histogram\n")).count(), 1, "{name}");
        assert_eq!(text.matches(&format!("# HELP {name} ")).count(), 1, "{name}");
    }
    let counted = |series: &str| -> Option<u64> {
        text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    };
    // Other tests of this process may deliver, too.
    let lived = counted("tidings_delivery_latency_seconds_count{priority=\"critical\"}").unwrap();
    let delivered = counted("tidings_deliveries_total{priority=\"critical\"}").unwrap();
    assert!(lived >= 7 && delivered >= lived + 2, "{lived} {delivered}");
    assert!(text.contains("tidings_batch_messages_bucket{le=\"+Inf\"} "));
}

#[test]
fn priorities_are_told_by_their_names() {
    assert_eq!(PRIORITIES, Priority::ALL.map(|priority| priority.name()));
    assert_eq!(Priority::ALL.map(slot), [0, 1, 2, 3]);
}
