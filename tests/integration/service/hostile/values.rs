//! Messages whose values nobody means well with, published by a socket.

use super::Answer::{Ends, Says};
use super::Attack::Frames;
use super::raw::text;
use super::{Answer, Row};

/// `event:publish` of this JSON.
fn publish(message: &str) -> Vec<u8> {
    text(&format!("421[\"event:publish\",{message}]"))
}

/// The same with this data.
fn data(json: &str) -> Vec<u8> {
    publish(&format!("{{\"channel\":\"story-v\",\"event\":\"custom:n\",\"data\":{json}}}"))
}

/// The same, of a test.
fn progress(data: &str) -> Vec<u8> {
    publish(&format!("{{\"channel\":\"test-progress-v\",\"event\":\"test:progress\",\"data\":{data}}}"))
}

pub(super) fn rows() -> Vec<Row> {
    let invalid = Says("431[{\"error\":{\"code\":\"invalid\"");
    let taken = Says("\"ok\":true");
    let deep = format!("{}1{}", "[".repeat(101), "]".repeat(101));
    let less_deep = format!("{}1{}", "[".repeat(99), "]".repeat(99));
    let cells: Vec<(&'static str, Vec<u8>, Answer)> = vec![
        ("a message as it should be", data("{\"n\":1}"), taken),
        ("a message of nothing", publish("null"), invalid),
        ("a message that is a list", publish("[\"custom:n\"]"), invalid),
        ("a message without an event", publish("{\"channel\":\"story-v\",\"data\":1}"), invalid),
        ("a message without data", publish("{\"channel\":\"story-v\",\"event\":\"custom:n\"}"), invalid),
        (
            "a message to nowhere",
            publish("{\"channel\":\"nowhere\",\"event\":\"custom:n\",\"data\":1}"),
            Says("unknown_channel"),
        ),
        (
            "a message that the channel does not carry",
            publish("{\"channel\":\"story-v\",\"event\":\"test:started\",\"data\":1}"),
            Says("unknown_event"),
        ),
        (
            "a message to the server's own channel",
            publish("{\"channel\":\"alerts\",\"event\":\"custom:n\",\"data\":1}"),
            Says("\"code\":\"forbidden\""),
        ),
        (
            "a message with a place of the sender's",
            publish(
                "{\"channel\":\"story-place\",\"event\":\"custom:n\",\"data\":1,\"epoch\":\"mine\",\"offset\":99,\"conflated\":7,\"timestamp\":1}",
            ),
            taken,
        ),
        (
            "a message with an event twice",
            publish("{\"channel\":\"story-v\",\"event\":\"custom:a\",\"event\":\"custom:b\",\"data\":1}"),
            taken,
        ),
        (
            "a message with data twice",
            publish("{\"channel\":\"story-v\",\"event\":\"custom:a\",\"data\":1,\"data\":2}"),
            taken,
        ),
        (
            "a message with a channel twice",
            publish("{\"channel\":\"story-v\",\"channel\":\"alerts\",\"event\":\"custom:a\",\"data\":1}"),
            Says("\"code\":\"forbidden\""),
        ),
        (
            "a message with an unknown field twice",
            publish("{\"channel\":\"story-v\",\"event\":\"custom:a\",\"data\":1,\"x\":1,\"x\":2}"),
            taken,
        ),
        (
            "a message with an id of no letters",
            publish("{\"id\":\"\",\"channel\":\"story-v\",\"event\":\"custom:a\",\"data\":1}"),
            invalid,
        ),
        (
            "a message with an id of 129",
            publish(&format!(
                "{{\"id\":\"{}\",\"channel\":\"story-v\",\"event\":\"custom:a\",\"data\":1}}",
                "i".repeat(129)
            )),
            invalid,
        ),
        (
            "a message with an id of quotes",
            publish("{\"id\":\"a\\\",\\\"b\",\"channel\":\"story-v\",\"event\":\"custom:a\",\"data\":1}"),
            invalid,
        ),
        (
            "a message with an id that is a number",
            publish("{\"id\":7,\"channel\":\"story-v\",\"event\":\"custom:a\",\"data\":1}"),
            invalid,
        ),
        (
            "a message of priority 0",
            publish("{\"priority\":0,\"channel\":\"story-v\",\"event\":\"custom:a\",\"data\":1}"),
            invalid,
        ),
        (
            "a message of priority 5",
            publish("{\"priority\":5,\"channel\":\"story-v\",\"event\":\"custom:a\",\"data\":1}"),
            invalid,
        ),
        (
            "a message of priority 1e99",
            publish("{\"priority\":1e99,\"channel\":\"story-v\",\"event\":\"custom:a\",\"data\":1}"),
            invalid,
        ),
        (
            "a message of a user with a space",
            publish("{\"userId\":\"a b\",\"channel\":\"story-v\",\"event\":\"custom:a\",\"data\":1}"),
            invalid,
        ),
        (
            "a message of an event with a space",
            publish("{\"channel\":\"story-v\",\"event\":\"custom: \",\"data\":1}"),
            invalid,
        ),
        (
            "a message of an event of 300",
            publish(&format!(
                "{{\"channel\":\"story-v\",\"event\":\"custom:{}\",\"data\":1}}",
                "e".repeat(300)
            )),
            invalid,
        ),
        ("data of 8 kB and more", data(&format!("\"{}\"", "x".repeat(8300))), Says("\"code\":\"too_large\"")),
        (
            "unknown fields of 8 kB and more",
            publish(&format!(
                "{{\"channel\":\"story-v\",\"event\":\"custom:a\",\"data\":1,\"x\":\"{}\"}}",
                "x".repeat(8300)
            )),
            Says("\"code\":\"too_large\""),
        ),
        ("data that is 101 deep", data(&deep), invalid),
        ("data that is 99 deep", data(&less_deep), taken),
        ("data with a number beyond a double", data("{\"n\":1e999}"), invalid),
        ("data with a long number", data(&format!("{{\"n\":{}}}", "9".repeat(400))), invalid),
        ("data with many digits", data(&format!("{{\"n\":0.{}}}", "1".repeat(2000))), taken),
        ("data with half a surrogate", data("{\"s\":\"\\ud83d\"}"), invalid),
        ("data with surrogates the wrong way round", data("{\"s\":\"\\udca9\\ud83d\"}"), invalid),
        ("data with a surrogate as a name", data("{\"\\ud83d\":1}"), invalid),
        ("data with a whole surrogate", data("{\"s\":\"\\ud83d\\udca9\"}"), taken),
        ("data with NUL", data("{\"s\":\"a\\u0000b\"}"), taken),
        ("data with a name twice", data("{\"a\":1,\"a\":2}"), taken),
        ("data with a prototype", data("{\"__proto__\":{\"admin\":true},\"constructor\":1}"), taken),
        ("data with a line break", data("\"a\\r\\ndata: x\""), taken),
        ("data with a separator of packets", data("\"\u{1e}42[1]\""), Ends),
        ("data with NaN", data("NaN"), Ends),
        ("data with a control character", data("\"\u{1}\""), Ends),
        ("data with a comma too many", data("[1,]"), Ends),
        ("progress that is a list", progress("[]"), invalid),
        ("progress of another test", progress("{\"testId\":\"other\",\"progress\":1}"), invalid),
        ("progress of 1,000", progress("{\"progress\":1000}"), invalid),
        ("progress below zero", progress("{\"progress\":-1}"), invalid),
        ("progress of text", progress("{\"progress\":\"half\"}"), invalid),
        ("progress of a negative attempt", progress("{\"attempt\":-1,\"progress\":1}"), invalid),
        (
            "progress of an attempt beyond numbers",
            progress("{\"attempt\":99999999999999999999,\"progress\":1}"),
            invalid,
        ),
        ("progress of a test's own twin", progress("{\"test\\u0049d\":\"other\",\"progress\":1}"), invalid),
    ];
    cells.into_iter().map(|(name, frames, answer)| Row { name, attack: Frames(frames), answer }).collect()
}
