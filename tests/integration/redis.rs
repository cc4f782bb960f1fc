//! Redis itself: the ground that its back ends stand on, and what they do when it fails.

mod ground;
mod presence;
