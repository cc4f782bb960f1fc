//! Scripts: what runs inside of Redis, as a whole.

use ::redis::{Arg, Cmd, ToRedisArgs};

/// A script in Lua, known to Redis by the hash of its text.
///
/// It should begin with `#!lua`: then Redis refuses it before its first change when there is no room, and when
/// its keys are not all in one place.
#[derive(Debug)]
pub struct Script {
    text: &'static str,
    hash: String,
}

impl Script {
    /// The script that is written in `text`.
    #[must_use]
    pub fn new(text: &'static str) -> Self {
        Self { text, hash: ::redis::Script::new(text).get_hash().to_owned() }
    }

    /// A call with these keys. In a cluster the first one says where it runs.
    #[must_use]
    pub fn call<K: ToRedisArgs>(&self, keys: &[K]) -> Call<'_> {
        let mut command = Cmd::with_capacity(3 + keys.len() + 8, 256);
        command.arg("EVALSHA").arg(&self.hash).arg(keys.len());
        for key in keys {
            command.arg(key);
        }
        Call { script: self, command }
    }
}

/// A call of a script.
#[derive(Debug)]
pub struct Call<'a> {
    script: &'a Script,
    command: Cmd,
}

impl Call<'_> {
    /// Adds an argument.
    pub fn arg(&mut self, value: impl ToRedisArgs) -> &mut Self {
        self.command.arg(value);
        self
    }

    pub(super) fn by_name(&self) -> &Cmd {
        &self.command
    }

    /// The same for a Redis that does not know the script; it does afterwards.
    pub(super) fn by_text(&self) -> Cmd {
        let mut command = Cmd::new();
        command.arg("EVAL").arg(self.script.text);
        for arg in self.command.args_iter().skip(2) {
            if let Arg::Simple(bytes) = arg {
                command.arg(bytes);
            }
        }
        command
    }
}
