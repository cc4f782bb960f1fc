//! Packets of Engine.IO and Socket.IO in good frames.

use super::Answer::{Ends, Says, Silence};
use super::Attack::Frames;
use super::raw::text;
use super::{Answer, Row};

pub(super) fn rows() -> Vec<Row> {
    let all = |packets: &[&str]| packets.iter().flat_map(|packet| text(packet)).collect::<Vec<u8>>();
    let acks = (0..500).flat_map(|n| text(&format!("43{n}[{{}}]"))).collect();
    let namespaces = (0..200).flat_map(|n| text(&format!("40/n{n},"))).collect();
    let joins = (0..40).flat_map(|n| text(&format!("42{n}[\"room:join\",\"story-{n}\"]"))).collect();
    let requests = (0..300)
        .flat_map(|n| {
            text(&format!("42{n}[\"event:publish\",{{\"channel\":\"story-wait\",\"event\":\"custom:n\"}}]"))
        })
        .collect();
    let deep = format!("42[\"room:join\",{}{}]", "[".repeat(3000), "]".repeat(3000));
    let cells: Vec<(&'static str, Vec<u8>, Answer)> = vec![
        // Engine.IO
        ("a packet without a type", all(&[""]), Ends),
        ("a packet of type 7", all(&["7"]), Ends),
        ("a packet of type x", all(&["x40"]), Ends),
        ("a packet that opens", all(&["0{}"]), Ends),
        ("a ping of a client", all(&["2"]), Silence),
        ("a pong that nobody waits for", all(&["3"]), Silence),
        ("a no-op", all(&["6"]), Ends),
        ("an upgrade of what is upgraded", all(&["5"]), Ends),
        ("a probe of what is upgraded", all(&["2probe"]), Ends),
        ("binary as base64", all(&["bAAEC"]), Ends),
        ("a goodbye of Engine.IO", all(&["1"]), Ends),
        // Socket.IO
        ("a message without a packet", all(&["4"]), Ends),
        ("a packet of type 9", all(&["49"]), Ends),
        ("a packet of letters", all(&["4hello"]), Ends),
        ("CONNECT twice", all(&["40"]), Silence),
        ("CONNECT a hundred times", text("40").repeat(100), Silence),
        (
            "a namespace that is none",
            all(&["40/admin,{}"]),
            Says("44/admin,{\"message\":\"Invalid namespace\"}"),
        ),
        ("two hundred namespaces", namespaces, Says("44/n199,")),
        ("an event in a namespace that is none", all(&["42/admin,[\"room:join\",\"story-x\"]"]), Silence),
        (
            "a namespace of a long name",
            all(&[&format!("40/{},", "n".repeat(4000))]),
            Says("Invalid namespace"),
        ),
        ("a goodbye to a namespace that is none", all(&["41/admin,"]), Silence),
        ("a refusal from a client", all(&["44{\"message\":\"no\"}"]), Ends),
        ("an event without a name", all(&["42[]"]), Ends),
        ("an event that is no array", all(&["42{\"room:join\":1}"]), Ends),
        ("an event that is no JSON", all(&["42[\"room:join\",}"]), Ends),
        ("an event whose name is a number", all(&["42[7,8]"]), Ends),
        ("an event that is cut off", all(&["42[\"room:join\""]), Ends),
        ("an event that does not exist", all(&["421[\"fly\",{}]"]), Says("\"code\":\"unknown_event\"")),
        ("an event of the server's", all(&["421[\"message:batch\",[]]"]), Says("\"code\":\"unknown_event\"")),
        ("an event of the library's", all(&["421[\"disconnect\"]"]), Says("\"code\":\"unknown_event\"")),
        (
            "an event with a long name",
            all(&[&format!("421[\"{}\"]", "e".repeat(5000))]),
            Says("\"code\":\"unknown_event\""),
        ),
        (
            "an event without a callback that does not exist",
            all(&["42[\"fly\"]"]),
            Says("42[\"error\",{\"code\":\"unknown_event\""),
        ),
        ("a binary event", all(&["451-[\"room:join\",{\"_placeholder\":true,\"num\":0}]"]), Ends),
        ("a binary event with 99,999 parts", all(&["4599999-[\"room:join\",{}]"]), Ends),
        ("a binary event without a number", all(&["45-[\"room:join\"]"]), Ends),
        ("a binary acknowledgement", all(&["461-0[{\"_placeholder\":true,\"num\":0}]"]), Ends),
        ("an acknowledgement that nobody waits for", all(&["4399999[{}]"]), Silence),
        ("an acknowledgement without a number", all(&["43[{}]"]), Ends),
        ("an acknowledgement beyond numbers", all(&["4399999999999999999999[{}]"]), Ends),
        ("500 acknowledgements", acks, Silence),
        ("a callback beyond numbers", all(&["4299999999999999999999[\"room:leave\",\"story-x\"]"]), Says("")),
        ("a callback of a negative number", all(&["42-1[\"room:leave\",\"story-x\"]"]), Ends),
        // Requests
        ("a join of nothing", all(&["421[\"room:join\"]"]), Says("431[{\"error\":{\"code\":\"invalid\"")),
        ("a join of a number", all(&["421[\"room:join\",7]"]), Says("\"code\":\"invalid\"")),
        ("a join of null", all(&["421[\"room:join\",null]"]), Says("\"code\":\"invalid\"")),
        (
            "a join of an unknown field",
            all(&["421[\"room:join\",{\"room\":\"story-x\",\"sinse\":\"start\"}]"]),
            Says("unknown field `sinse`"),
        ),
        (
            "a join of one field twice",
            all(&["421[\"room:join\",{\"room\":\"story-x\",\"room\":\"story-y\"}]"]),
            Says("431[{"),
        ),
        (
            "a join of a room that is none",
            all(&["421[\"room:join\",\"nothing\"]"]),
            Says("\"code\":\"unknown_channel\""),
        ),
        (
            "a join of a room with a path",
            all(&["421[\"room:join\",\"../story-x\"]"]),
            Says("\"code\":\"invalid\""),
        ),
        (
            "a join of a room with a space",
            all(&["421[\"room:join\",\"story- x\"]"]),
            Says("\"code\":\"invalid\""),
        ),
        (
            "a join of a room with NUL",
            all(&["421[\"room:join\",\"story-\\u0000\"]"]),
            Says("\"code\":\"invalid\""),
        ),
        (
            "a join of half a surrogate",
            all(&["421[\"room:join\",\"story-\\ud800\"]"]),
            Says("\"code\":\"invalid\""),
        ),
        (
            "a join of a very long room",
            all(&[&format!("421[\"room:join\",\"story-{}\"]", "x".repeat(4000))]),
            Says("\"code\":\"invalid\""),
        ),
        ("a join of every room", all(&["421[\"room:join\",\"*\"]"]), Says("\"code\":\"invalid\"")),
        ("a join of 3,000 arrays", all(&[&deep]), Says("\"code\":\"invalid\"")),
        (
            "a join since yesterday",
            all(&["421[\"room:join\",{\"room\":\"story-x\",\"since\":\"yesterday\"}]"]),
            Says("`since` is {epoch, offset}"),
        ),
        (
            "a join since before the start",
            all(&["421[\"room:join\",{\"room\":\"story-x\",\"since\":{\"epoch\":\"e\",\"offset\":-1}}]"]),
            Says("`since` is {epoch, offset}"),
        ),
        (
            "a join since a fraction",
            all(&["421[\"room:join\",{\"room\":\"story-x\",\"since\":{\"epoch\":\"e\",\"offset\":1.5}}]"]),
            Says("`since` is {epoch, offset}"),
        ),
        (
            "a join since a list",
            all(&["421[\"room:join\",{\"room\":\"story-x\",\"since\":[\"e\",1]}]"]),
            Says("`since` is {epoch, offset}"),
        ),
        (
            "a join since beyond numbers",
            all(&["421[\"room:join\",{\"room\":\"story-x\",\"since\":{\"epoch\":\"e\",\"offset\":1e400}}]"]),
            Says("\"code\":\"invalid\""),
        ),
        (
            "a join since the last number",
            all(&[
                "421[\"room:join\",{\"room\":\"story-x\",\"since\":{\"epoch\":\"e\",\"offset\":18446744073709551615}}]",
            ]),
            Says("\"recovered\":false"),
        ),
        (
            "a join since a long epoch",
            all(&[&format!(
                "421[\"room:join\",{{\"room\":\"story-x\",\"since\":{{\"epoch\":\"{}\",\"offset\":1}}}}]",
                "e".repeat(3000)
            )]),
            Says("`since` is {epoch, offset}"),
        ),
        ("more rooms than one may have", joins, Says("\"code\":\"too_many_rooms\"")),
        (
            "a leave of a room without being there",
            all(&["421[\"room:leave\",\"story-x\"]"]),
            Says("431[{\"ok\":true"),
        ),
        ("a leave of a list", all(&["421[\"room:leave\",[\"story-x\"]]"]), Says("\"code\":\"invalid\"")),
        (
            "an acknowledgement of a room without being there",
            all(&["421[\"message:ack\",{\"room\":\"story-x\",\"epoch\":\"e\",\"offset\":1}]"]),
            Says("\"code\":\"not_joined\""),
        ),
        (
            "an acknowledgement of what was never sent",
            all(&[
                "421[\"room:join\",\"story-good\"]",
                "422[\"message:ack\",{\"room\":\"story-good\",\"epoch\":\"e\",\"offset\":9999999}]",
            ]),
            Says("\"code\":\"never_sent\""),
        ),
        ("an acknowledgement of nothing", all(&["421[\"message:ack\"]"]), Says("\"code\":\"invalid\"")),
        ("300 requests at once: the last one is answered too", requests, Says("43299[")),
        ("a ping of nothing", all(&["42[\"heartbeat:ping\"]"]), Says("heartbeat:pong")),
        ("a ping of a list", all(&["42[\"heartbeat:ping\",[1,2]]"]), Says("heartbeat:pong")),
        ("a refresh of no token", all(&["421[\"auth:refresh\"]"]), Says("\"ok\":false")),
    ];
    cells.into_iter().map(|(name, frames, answer)| Row { name, attack: Frames(frames), answer }).collect()
}
