//! `channels.toml`: every text makes rules, or a list of mistakes with their places.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidings::config::channels::Rules;

fuzz_target!(|text: &str| {
    match Rules::parse("channels.toml", text) {
        Ok(rules) => {
            for name in ["queue-updates", "test-progress-x", "a", "story-1", "-", ""] {
                let Some(resolved) = rules.resolve(name) else { continue };
                assert!(resolved.value(name).is_none_or(|value| name.contains(value)));
                let event = "test:progress";
                let _ = (resolved.namespace.allows(event), resolved.namespace.priority(event));
            }
            let namespaces = rules.namespaces();
            for (n, one) in namespaces.iter().enumerate() {
                // Or two of them would answer for one channel.
                assert!(namespaces[n + 1..].iter().all(|other| one.pattern.overlap(&other.pattern).is_none()));
            }
        }
        Err(error) => {
            assert!(!error.diagnostics().is_empty());
            assert!(error.diagnostics().iter().all(|d| d.line >= 1 && d.column >= 1 && !d.message.is_empty()));
        }
    }
});
