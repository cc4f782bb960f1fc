//! What may go wrong with Redis, sorted by what to do about it.

use ::redis::{ErrorKind, ParsingError, RedisError, ServerErrorKind};

use crate::fault::{Cause, Fault};

/// Why Redis did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedisFault {
    /// There is no connection, or it broke; what was on the way may have been carried out.
    #[error("Redis cannot be reached: {0}")]
    Away(String),
    /// It did not answer in time; what it was asked may have been, or may yet be, carried out.
    #[error("Redis does not answer: {0}")]
    Slow(String),
    /// It has no room for more, in memory or on its disk.
    #[error("Redis has no room for more: {0}")]
    Full(String),
    /// It takes no changes now: a replica, or a primary without enough replicas.
    #[error("Redis takes no changes: {0}")]
    ReadOnly(String),
    /// It does not let this user in, or not do this.
    #[error(
        "Redis refuses: {0}; check the user and the password in the URL, and the rules of that user (ACL)"
    )]
    Refused(String),
    /// It is not one that can be worked with.
    #[error("{0}")]
    Unsuitable(String),
    /// It does not know the script; nothing was done.
    #[error("Redis does not know the script")]
    UnknownScript,
    /// It answered something that makes no sense here.
    #[error("Redis answered with a fault: {0}")]
    Broken(String),
}

impl RedisFault {
    /// Sorts an error of the library.
    #[must_use]
    pub fn of(error: &RedisError) -> Self {
        use ServerErrorKind as Server;
        // What the library's parser says of an answer that was cut has several lines.
        let detail = error.to_string().lines().map(str::trim).collect::<Vec<_>>().join("; ");
        match (error.kind(), error.code()) {
            (_, Some("OOM")) => Self::Full(detail),
            (_, Some("MISCONF")) if detail.contains("No space") => Self::Full(detail),
            (_, Some("MISCONF" | "NOREPLICAS")) | (ErrorKind::Server(Server::ReadOnly), _) => {
                Self::ReadOnly(detail)
            }
            (_, Some("WRONGPASS" | "NOAUTH" | "NOPERM"))
            | (ErrorKind::AuthenticationFailed | ErrorKind::Server(Server::NoPerm), _) => {
                Self::Refused(detail)
            }
            (ErrorKind::Server(Server::NoScript), _) => Self::UnknownScript,
            (
                ErrorKind::Server(
                    Server::BusyLoading
                    | Server::Moved
                    | Server::Ask
                    | Server::TryAgain
                    | Server::ClusterDown
                    | Server::MasterDown,
                )
                | ErrorKind::ClusterConnectionNotFound
                | ErrorKind::MasterNameNotFoundBySentinel
                | ErrorKind::EmptySentinelList,
                _,
            ) => Self::Away(detail),
            (ErrorKind::RESP3NotSupported, _) => Self::Unsuitable(format!(
                "Redis 7.0 or newer is needed, or Valkey; what answers knows no RESP3 ({detail})"
            )),
            (ErrorKind::Io, _) if error.is_timeout() => Self::Slow(detail),
            (ErrorKind::Io | ErrorKind::Parse, _) => Self::Away(detail),
            _ => Self::Broken(detail),
        }
    }

    /// An answer that is not of the shape that was asked for.
    #[must_use]
    pub fn unreadable(error: &ParsingError) -> Self {
        Self::Broken(format!("an answer of an unexpected shape: {error}"))
    }

    /// Whether another connection might do better.
    pub(super) fn is_about_connection(&self) -> bool {
        matches!(self, Self::Away(_) | Self::Slow(_) | Self::ReadOnly(_))
    }

    /// Whether waiting does not help: somebody has to change something.
    pub(super) fn is_lasting(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Unsuitable(_))
    }
}

impl From<RedisFault> for Fault {
    fn from(fault: RedisFault) -> Self {
        match fault {
            RedisFault::Full(_) => Self::Full(Cause::new(fault)),
            _ => Self::Unavailable(Cause::new(fault)),
        }
    }
}
