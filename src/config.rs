//! Configuration: what an operator decides, read and checked before anything starts.

pub mod channels;
mod nearest;
