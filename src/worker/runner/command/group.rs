//! The process group of a command: what is started in it ends with it.

use rustix::process::{Pid, Signal, kill_process_group};

/// How a group is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// SIGINT, as Ctrl-C does.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// SIGHUP: the terminal is gone.
    Hangup,
}

impl Ask {
    /// The signal's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
            Self::Hangup => "SIGHUP",
        }
    }

    fn signal(self) -> Signal {
        match self {
            Self::Interrupt => Signal::INT,
            Self::Terminate => Signal::TERM,
            Self::Hangup => Signal::HUP,
        }
    }
}

/// A process group of our own; dropping it kills it.
#[derive(Debug)]
pub(crate) struct Group {
    leader: Option<Pid>,
}

impl Group {
    /// The group that the process with this id was started to lead.
    pub(crate) fn led_by(id: Option<u32>) -> Self {
        Self { leader: id.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) }
    }

    /// Asks every process of the group to end.
    pub(crate) fn ask(&self, ask: Ask) {
        self.signal(ask.signal());
    }

    /// Ends every process of the group; there is nothing to signal any more.
    pub(crate) fn kill(&mut self) {
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
