//! Integration tests: one binary, a module per subject.

mod runner_command;
