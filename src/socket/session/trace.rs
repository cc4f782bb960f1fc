//! The trace of what a client publishes: its own, where the message has a `traceparent`, or one that begins here.

use std::time::SystemTime;

use serde_json::value::RawValue;

use crate::model::Incoming;
use crate::model::trace::{TRACEPARENT, TraceContext};
use crate::publish::PublishError;
use crate::traces::{self, Kind, Span};

/// The place of an event in a trace, where somebody wants traces.
pub(super) struct Traced(Option<(TraceContext, u64, SystemTime)>);

/// A message is about to be published. Where traces are wanted it is a span of the message's own trace, or the first one
/// of a new trace, and whatever comes of the message stands below it.
pub(super) fn begin(mut message: Incoming) -> (Incoming, Traced) {
    if !traces::wanted() {
        // What the sender says is passed on all the same.
        return (message, Traced(None));
    }
    let given = message.extra.iter().position(|(name, _)| name == TRACEPARENT);
    let parent = given.and_then(|at| {
        let text: &str = serde_json::from_str(message.extra[at].1.get()).ok()?;
        TraceContext::parse(text)
    });
    let context = match (given, parent) {
        (_, Some(parent)) => parent.child(),
        (None, None) => TraceContext::root(),
        // What is no place in a trace stays what it is: a field that the server does not know.
        (Some(_), None) => return (message, Traced(None)),
    };
    // Digits and dashes are JSON once they are quoted.
    let Ok(value) = RawValue::from_string(format!("\"{context}\"")) else { return (message, Traced(None)) };
    match given {
        Some(at) => message.extra[at].1 = value,
        None => message.extra.push((TRACEPARENT.to_owned(), value)),
    }
    let parent = parent.map_or(0, |parent| parent.span_id);
    (message, Traced(Some((context, parent, SystemTime::now()))))
}

impl Traced {
    /// It was published, or refused.
    pub(super) fn end(self, refused: Option<&PublishError>) {
        let Some((context, parent, began)) = self.0 else { return };
        traces::record(Span {
            name: "event:publish".to_owned(),
            kind: Kind::Server,
            context,
            parent,
            began,
            ended: SystemTime::now(),
            failure: refused.map(|error| error.code().to_owned()),
            attributes: Vec::new(),
        });
    }
}
