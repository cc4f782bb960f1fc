//! Who a suite's command runs as: the suite's `user` and `group`, looked up on this machine.

use nix::unistd::{Group, User};
use rustix::process::geteuid;

use crate::config::suite::Suite;

/// Another user than the server's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// What programs expect to find of their user in the environment.
    pub(super) env: [(&'static str, String); 4],
}

/// Why a command cannot run as its suite says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdentity {
    /// Only root may become somebody else.
    #[error(
        "`user` needs a server that runs as root, this one is user {uid}: run it as root, or leave `user` out"
    )]
    NotRoot {
        /// Who the server is.
        uid: u32,
    },
    /// Nobody has the name.
    #[error("there is no {what} `{name}` on this machine: create it, or correct `{what}`")]
    Unknown {
        /// `user` or `group`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// The machine could not say.
    #[error("{what} `{name}` cannot be looked up: {error}")]
    LookUp {
        /// `user` or `group`.
        what: &'static str,
        /// The name.
        name: String,
        /// What the system said.
        error: nix::Error,
    },
}

impl Identity {
    /// Whom `suite` names, if anybody.
    pub(super) fn of(suite: &Suite) -> Result<Option<Self>, InvalidIdentity> {
        let Some(name) = &suite.user else { return Ok(None) };
        if !geteuid().is_root() {
            return Err(InvalidIdentity::NotRoot { uid: geteuid().as_raw() });
        }
        let user = found("user", name, User::from_name(name))?;
        let gid = match &suite.group {
            Some(name) => found("group", name, Group::from_name(name))?.gid,
            None => user.gid,
        };
        let [home, shell] = [&user.dir, &user.shell].map(|path| path.display().to_string());
        let env = [("USER", user.name.clone()), ("LOGNAME", user.name), ("HOME", home), ("SHELL", shell)];
        Ok(Some(Self { uid: user.uid.as_raw(), gid: gid.as_raw(), env }))
    }
}

fn found<T>(what: &'static str, name: &str, looked_up: nix::Result<Option<T>>) -> Result<T, InvalidIdentity> {
    let name = || name.to_owned();
    let found = looked_up.map_err(|error| InvalidIdentity::LookUp { what, name: name(), error })?;
    found.ok_or_else(|| InvalidIdentity::Unknown { what, name: name() })
}
