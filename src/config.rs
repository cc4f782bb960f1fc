//! Configuration: what an operator may set, and whether it makes sense.

pub mod suite;
