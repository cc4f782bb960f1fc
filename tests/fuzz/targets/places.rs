//! Positions, cursors and offsets, as they come in a query or a header.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = tidings::http::read_place(text);
});
