//! The process group of a command: what is started in it ends with it.

use rustix::process::{Pid, Signal, kill_process_group};

/// A process group of our own; dropping it kills it.
#[derive(Debug)]
pub(super) struct Group {
    leader: Option<Pid>,
}

impl Group {
    /// The group that the process with this id was started to lead.
    pub(super) fn led_by(id: Option<u32>) -> Self {
        Self { leader: id.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) }
    }

    /// Asks every process of the group to end.
    pub(super) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Ends every process of the group; there is nothing to signal any more.
    pub(super) fn kill(&mut self) {
        self.signal(Signal::KILL);
        // The id may belong to somebody else from now on.
        self.leader = None;
    }

    fn signal(&self, signal: Signal) {
        if let Some(leader) = self.leader {
            // The only error to expect is that nobody is left, which is what we want.
            let _ = kill_process_group(leader, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
