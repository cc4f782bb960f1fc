//! Integration tests: one binary, a module per subject.

mod many_jobs;
mod runner_command;
mod service;
