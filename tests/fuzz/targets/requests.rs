//! What a client asks of a socket: an event's name, a line break, and its argument as JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (event, data) = text.split_once('\n').unwrap_or((text, ""));
    let data = serde_json::from_str(data).ok();
    if let Err(code) = tidings::socket::read_request(event, data.clone()) {
        assert!(["invalid", "unknown_event"].contains(&code), "{code}");
    }
    if let Err(code) = tidings::socket::read_handshake(data) {
        assert_eq!(code, "invalid_handshake");
    }
});
