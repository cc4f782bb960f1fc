//! Patterns: which channel names belong to a namespace, and which events it carries.

use std::fmt;
use std::ops::Range;

use crate::model::EventName;
use crate::model::event::InvalidEvent;
use crate::model::id::{MAX_ID_LEN, is_id_char};

/// The longest fixed part of a pattern: with a placeholder of full length the name is as long as a channel's
/// name may be.
const MAX_FIXED_LEN: usize = crate::model::channel::MAX_CHANNEL_LEN - MAX_ID_LEN;

/// Which channel names belong to a namespace: `queue-updates`, or `test-progress-{testId}`.
///
/// The placeholder stands for 1 to 128 characters of `A-Z a-z 0-9 _ . : -`.
#[derive(Clone, PartialEq, Eq)]
pub struct Pattern {
    prefix: String,
    /// The placeholder's name, and what follows it.
    rest: Option<(String, String)>,
}

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// There is nothing in it.
    #[error("a pattern may not be empty")]
    Empty,
    /// The fixed part leaves no room for a placeholder.
    #[error("the fixed part of a pattern has at most {MAX_FIXED_LEN} characters, this one has {0}")]
    TooLong(usize),
    /// A character that no channel name has.
    #[error(
        "a pattern is made of A-Z a-z 0-9 _ . : - and at most one {{placeholder}}; {0:?} is none of them"
    )]
    Character(char),
    /// `{` and `}` do not make one placeholder.
    #[error("a pattern has at most one {{placeholder}}, opened by {{ and closed by }}")]
    Placeholder,
    /// The placeholder's name is not one.
    #[error("the name of a placeholder is made of letters, digits and _, like {{testId}}, not {0:?}")]
    PlaceholderName(String),
}

impl Pattern {
    /// Reads a pattern, or says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        let (prefix, rest) = match text.split_once('{') {
            None => (text, None),
            Some((prefix, rest)) => {
                let (name, suffix) = rest.split_once('}').ok_or(PatternError::Placeholder)?;
                if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                    return Err(PatternError::PlaceholderName(name.to_owned()));
                }
                (prefix, Some((name.to_owned(), suffix.to_owned())))
            }
        };
        let suffix = rest.as_ref().map_or("", |(_, suffix)| suffix.as_str());
        match prefix.chars().chain(suffix.chars()).find(|c| !is_id_char(*c)) {
            Some('{' | '}') => return Err(PatternError::Placeholder),
            Some(c) => return Err(PatternError::Character(c)),
            None => {}
        }
        let fixed = prefix.len() + suffix.len();
        if fixed > MAX_FIXED_LEN {
            return Err(PatternError::TooLong(fixed));
        }
        Ok(Self { prefix: prefix.to_owned(), rest })
    }

    /// The name of the placeholder, if there is one.
    #[must_use]
    pub fn placeholder(&self) -> Option<&str> {
        self.rest.as_ref().map(|(name, _)| name.as_str())
    }

    /// Whether `channel` belongs to it, and if so which part of the name the placeholder stands for.
    #[must_use]
    pub fn matches(&self, channel: &str) -> Option<Option<Range<usize>>> {
        let Some((_, suffix)) = &self.rest else {
            return (channel == self.prefix).then_some(None);
        };
        let value = channel.strip_prefix(&*self.prefix)?.strip_suffix(&**suffix)?;
        let fits = (1..=MAX_ID_LEN).contains(&value.len()) && value.chars().all(is_id_char);
        fits.then(|| Some(self.prefix.len()..self.prefix.len() + value.len()))
    }

    /// A name that belongs to both patterns, if there is any.
    #[must_use]
    pub fn overlap(&self, other: &Self) -> Option<String> {
        let (Some((_, suffix)), Some((_, other_suffix))) = (&self.rest, &other.rest) else {
            let (literal, pattern) = if self.rest.is_none() { (self, other) } else { (other, self) };
            return pattern.matches(&literal.prefix).map(|_| literal.prefix.clone());
        };
        // A common name starts with both prefixes and ends with both suffixes, so with the longer ones.
        let start = longer(&self.prefix, &other.prefix, |long, short| long.starts_with(short))?;
        let end = longer(suffix, other_suffix, |long, short| long.ends_with(short))?;
        let fixed = [self.prefix.len() + suffix.len(), other.prefix.len() + other_suffix.len()];
        let shortest = fixed[0].max(fixed[1]) + 1;
        let longest = fixed[0].min(fixed[1]) + MAX_ID_LEN;
        (shortest..=longest).find_map(|len| {
            // One pattern's prefix may reach into the other one's suffix: `ab{x}` and `{y}bc` share `abc`.
            let shared = (start.len() + end.len()).saturating_sub(len);
            let filler = len.saturating_sub(start.len() + end.len());
            let tail = end.strip_prefix(&start[start.len() - shared..])?;
            Some(format!("{start}{}{tail}", "x".repeat(filler)))
        })
    }
}

/// The longer of two texts, if the shorter one is the part of it that `holds` says.
fn longer<'a>(a: &'a str, b: &'a str, holds: impl Fn(&str, &str) -> bool) -> Option<&'a str> {
    let (long, short) = if a.len() >= b.len() { (a, b) } else { (b, a) };
    holds(long, short).then_some(long)
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.prefix)?;
        match &self.rest {
            Some((name, suffix)) => write!(f, "{{{name}}}{suffix}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

/// One event, or all events whose names begin alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventPattern {
    /// Just this one.
    Exact(EventName),
    /// `custom:*` as `custom:`: every event whose name goes on after this.
    Prefix(String),
}

impl EventPattern {
    /// Reads `test:started` or `custom:*`.
    pub fn parse(text: &str) -> Result<Self, InvalidEvent> {
        match text.strip_suffix(":*") {
            Some(name) => EventName::parse(name).map(|name| Self::Prefix(format!("{name}:"))),
            None => EventName::parse(text).map(Self::Exact),
        }
    }

    /// Whether `event` is one of those meant.
    #[must_use]
    pub fn matches(&self, event: &str) -> bool {
        match self {
            Self::Exact(name) => name.as_str() == event,
            Self::Prefix(prefix) => event.len() > prefix.len() && event.starts_with(prefix.as_str()),
        }
    }

    /// Whether any event is meant by both.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(name), pattern) | (pattern, Self::Exact(name)) => pattern.matches(name.as_str()),
            (Self::Prefix(a), Self::Prefix(b)) => a.starts_with(b.as_str()) || b.starts_with(a.as_str()),
        }
    }

    /// Orders patterns so that the first one that matches is the most particular: exact ones first, then longer
    /// before shorter prefixes.
    pub(super) fn rank(&self) -> (bool, std::cmp::Reverse<usize>) {
        match self {
            Self::Exact(name) => (false, std::cmp::Reverse(name.as_str().len())),
            Self::Prefix(prefix) => (true, std::cmp::Reverse(prefix.len())),
        }
    }
}

impl fmt::Display for EventPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => write!(f, "{name}"),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap()
    }

    #[test]
    fn a_placeholder_stands_for_one_to_128_characters_of_an_id() {
        let p = pattern("test-progress-{testId}");
        assert_eq!(p.placeholder(), Some("testId"));
        assert_eq!(p.matches("test-progress-a:b.c"), Some(Some(14..19)));
        assert_eq!(p.matches("test-progress-"), None);
        assert_eq!(p.matches("test-progress-a b"), None);
        assert!(p.matches(&format!("test-progress-{}", "x".repeat(128))).is_some());
        assert!(p.matches(&format!("test-progress-{}", "x".repeat(129))).is_none());
        assert_eq!(pattern("a-{x}-z").matches("a-1-z"), Some(Some(2..3)));
        assert_eq!(pattern("a-{x}-z").matches("a-z"), None, "prefix and suffix may not share a character");
        assert_eq!(pattern("queue-updates").matches("queue-updates"), Some(None));
    }

    #[test]
    fn what_is_not_a_pattern_is_refused_with_its_reason() {
        for (text, expected) in [
            ("", PatternError::Empty),
            ("a b", PatternError::Character(' ')),
            ("ä", PatternError::Character('ä')),
            ("{a}-{b}", PatternError::Placeholder),
            ("{a", PatternError::Placeholder),
            ("a}", PatternError::Placeholder),
            ("{}", PatternError::PlaceholderName(String::new())),
            ("{a-b}", PatternError::PlaceholderName("a-b".to_owned())),
        ] {
            assert_eq!(Pattern::parse(text), Err(expected), "{text}");
        }
        assert_eq!(Pattern::parse(&"x".repeat(129)), Err(PatternError::TooLong(129)));
    }

    #[test]
    fn a_pattern_is_shown_as_it_was_written() {
        for text in ["queue-updates", "{x}", "a-{x}-b"] {
            assert_eq!(pattern(text).to_string(), text);
        }
    }

    #[test]
    fn patterns_too_far_apart_in_length_do_not_overlap() {
        assert_eq!(
            pattern(&format!("{}{{x}}", "a".repeat(127))).overlap(&pattern("{y}")).unwrap().len(),
            128
        );
        assert_eq!(pattern(&format!("{}{{x}}", "a".repeat(128))).overlap(&pattern("{y}")), None);
        // Only a name in which the prefix reaches into the suffix is short enough.
        let (long, end) = ("a".repeat(120), "a".repeat(120));
        let name = pattern(&format!("{long}{{x}}")).overlap(&pattern(&format!("{{y}}{end}"))).unwrap();
        assert_eq!(name.len(), 121);
    }

    #[test]
    fn a_wildcard_event_needs_something_in_its_place() {
        let p = EventPattern::parse("custom:*").unwrap();
        assert!(p.matches("custom:x") && !p.matches("custom:") && !p.matches("custom"));
        assert!(p.meets(&EventPattern::parse("custom:x:*").unwrap()));
        assert!(!p.meets(&EventPattern::parse("custom").unwrap()));
        for bad in ["", "*", ":*", "a*", "a:*:b", "a b"] {
            assert!(EventPattern::parse(bad).is_err(), "{bad}");
        }
    }

    /// All names of up to six characters of an alphabet that the generated patterns are made of.
    fn short_names() -> Vec<String> {
        let mut names = vec![String::new()];
        for start in 0.. {
            let Some(name) = names.get(start).filter(|name| name.len() < 6).cloned() else { break };
            names.extend(["a", "b"].map(|c| format!("{name}{c}")));
        }
        names
    }

    proptest! {
        #[test]
        fn overlap_agrees_with_trying_every_name(
            a in "[ab]{0,2}(\\{x\\}[ab]{0,2})?", b in "[ab]{0,2}(\\{x\\}[ab]{0,2})?",
        ) {
            let (Ok(a), Ok(b)) = (Pattern::parse(&a), Pattern::parse(&b)) else { return Ok(()) };
            let both = |name: &str| a.matches(name).is_some() && b.matches(name).is_some();
            let found = a.overlap(&b);
            prop_assert_eq!(found.is_some(), short_names().iter().any(|name| both(name)));
            prop_assert_eq!(found.is_some(), b.overlap(&a).is_some());
            if let Some(name) = found {
                prop_assert!(both(&name), "{} is said to match {} and {}", name, a, b);
            }
        }
    }
}
