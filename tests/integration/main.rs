//! Integration tests: one binary, a module per subject.

mod conformance;
mod fanout;
mod layers;
mod store;
mod support;
