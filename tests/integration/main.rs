//! Integration tests: one binary, a module per subject.

mod backlog;
mod conformance;
mod fanout;
mod layers;
mod many_jobs;
mod model;
mod redis;
mod redis_queue;
mod retention;
mod runner_command;
mod schedules;
mod service;
mod store;
mod support;
mod typescript;
