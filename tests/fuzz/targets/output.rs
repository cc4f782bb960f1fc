//! What test commands print, read by every parser: counts never pass their total, and everything is bounded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidings::config::suite::Format;
use tidings::worker::progress::ProgressState;
use tidings::worker::runner::parse::{Exit, parser, plain_text};

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    for format in Format::ALL {
        let (mut parser, mut state) = (parser(format), ProgressState::default());
        for line in text.lines() {
            parser.line(&plain_text(line), &mut state);
            assert!((0.0..=100.0).contains(&state.progress), "{format:?}: {}", state.progress);
            assert!(state.current.len() <= 16 && state.failures.len() <= tidings::model::test::MAX_FAILURES);
        }
        parser.finish(Exit::Code(1), &mut state);
        assert!(state.current.is_empty(), "{format:?}: {:?}", state.current);
        assert!((0.0..=100.0).contains(&state.progress), "{format:?}: {}", state.progress);
    }
});
