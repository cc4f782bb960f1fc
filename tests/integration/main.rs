//! Integration tests: one binary, a module per subject.

mod conformance;
mod store;
mod support;
