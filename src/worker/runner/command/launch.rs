//! Starts a suite's command.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use super::group::Group;
use super::identity::{Identity, InvalidIdentity};
use crate::config::suite::{InvalidCases, PASSED_ENV, RESERVED_ENV, Suite};
use crate::model::Job;
use crate::worker::runner::guard::Confinement;
use crate::worker::runner::parse::Exit;

/// Everything there is to know about an attempt's command.
pub(super) struct Launch<'a> {
    pub(super) name: &'a str,
    pub(super) suite: &'a Suite,
    pub(super) params: &'a BTreeMap<String, String>,
    pub(super) only: Option<&'a [String]>,
    pub(super) job: &'a Job,
    pub(super) guard: Option<&'a Path>,
}

/// Why a command cannot be started, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub(super) enum LaunchError {
    #[error("suite `{suite}`: the directory `{}` does not exist; create it, or correct `cwd`", cwd.display())]
    NoDirectory { suite: String, cwd: PathBuf },
    #[error("suite `{suite}`: there is no program `{program}`{place}; install it, or correct `command`")]
    NotFound { suite: String, program: String, place: &'static str },
    #[error("suite `{suite}`: `{}` is not an executable file; make it one with chmod +x, or name its interpreter in `command`", program.display())]
    NotExecutable { suite: String, program: PathBuf },
    #[error("suite `{suite}`: `{}` cannot be started: {source}", program.display())]
    Spawn { suite: String, program: PathBuf, source: io::Error },
    #[error("suite `{suite}`: {source}")]
    Identity { suite: String, source: InvalidIdentity },
    #[error("suite `{suite}`: {source}")]
    Cases { suite: String, source: InvalidCases },
    #[error(
        "suite `{suite}`: `user` and `rlimits` are applied by `tidings guard`, which this worker does not have"
    )]
    NoGuard { suite: String },
}

/// A running command.
pub(super) struct Process {
    // First, so that a dropped process takes its group along before anything else.
    pub(super) group: Group,
    child: Child,
    // The guard ends the group when this closes.
    _lifeline: Option<ChildStdin>,
    is_guarded: bool,
}

impl Launch<'_> {
    pub(super) fn start(&self) -> Result<Process, LaunchError> {
        let suite = || self.name.to_owned();
        if let Some(cwd) = self.suite.cwd.as_ref().filter(|cwd| !cwd.is_dir()) {
            return Err(LaunchError::NoDirectory { suite: suite(), cwd: cwd.clone() });
        }
        let identity =
            Identity::of(self.suite).map_err(|source| LaunchError::Identity { suite: suite(), source })?;
        let env = self.environment(std::env::vars_os(), identity.as_ref());
        let argv = match self.only {
            None => self.suite.command_with(self.params),
            Some(only) => self
                .suite
                .rerun_with(self.params, only)
                .map_err(|source| LaunchError::Cases { suite: suite(), source })?,
        };
        let (program, arguments) = argv.split_first().ok_or_else(|| LaunchError::NotFound {
            suite: suite(),
            program: String::new(),
            place: "",
        })?;
        let program = self.find(program, env.get(OsStr::new("PATH")))?;
        let confinement = Confinement {
            user: identity.map(|identity| (identity.uid, identity.gid)),
            rlimits: self.suite.rlimits.set(),
        };
        let mut command = match self.guard {
            Some(guard) => {
                let mut command = Command::new(guard);
                command
                    .arg("guard")
                    .args(confinement.options())
                    .arg("--")
                    .arg(&program)
                    .stdin(Stdio::piped());
                command
            }
            None if !confinement.is_none() => return Err(LaunchError::NoGuard { suite: suite() }),
            None => {
                let mut command = Command::new(&program);
                command.stdin(Stdio::null());
                command
            }
        };
        command.args(arguments).env_clear().envs(env).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        if let Some(cwd) = &self.suite.cwd {
            command.current_dir(cwd);
        }
        let started = self.guard.map_or(program, Path::to_path_buf);
        let mut child = command.spawn().map_err(|source| LaunchError::Spawn {
            suite: suite(),
            program: started,
            source,
        })?;
        let lifeline = child.stdin.take();
        let group = Group::led_by(child.id());
        Ok(Process { group, child, _lifeline: lifeline, is_guarded: self.guard.is_some() })
    }

    /// The few of ours that harm nobody, then the user's, the suite's, the submitter's and the attempt's. Ours
    /// may hold secrets under any name, so that nothing else is passed on.
    fn environment(
        &self,
        ours: impl Iterator<Item = (OsString, OsString)>,
        identity: Option<&Identity>,
    ) -> BTreeMap<OsString, OsString> {
        let passed = |name: &OsStr| {
            name.to_str().is_some_and(|name| {
                PASSED_ENV.contains(&name)
                    || name.starts_with("LC_")
                    || self.suite.pass_env.iter().any(|passed| passed == name)
            })
        };
        let mut env: BTreeMap<_, _> = ours.filter(|(name, _)| passed(name)).collect();
        if let Some(identity) = identity {
            env.extend(identity.env.iter().map(|(name, value)| (name.into(), value.into())));
        }
        if let Some(trace) = self.job.trace() {
            // As instrumented programs expect it.
            env.insert("TRACEPARENT".into(), trace.to_string().into());
        }
        env.extend(self.suite.env.iter().map(|(name, value)| (name.into(), value.into())));
        // The others are arguments.
        let set = self.params.iter().filter(|(name, _)| self.suite.params.contains_key(*name));
        env.extend(set.map(|(name, value)| (name.into(), value.into())));
        let attempt = self.job.attempt.to_string();
        let values = [self.job.test_id.as_str(), self.job.job_id.as_str(), &attempt];
        env.extend(RESERVED_ENV.iter().zip(values).map(|(name, value)| (name.into(), value.into())));
        env
    }

    /// The file of `program`: a name is looked up in `path`, a relative path belongs to the suite's directory.
    fn find(&self, program: &str, path: Option<&OsString>) -> Result<PathBuf, LaunchError> {
        let cwd = self.suite.cwd.clone().unwrap_or_default();
        let not_executable = |program| LaunchError::NotExecutable { suite: self.name.to_owned(), program };
        let not_found =
            |place| LaunchError::NotFound { suite: self.name.to_owned(), program: program.to_owned(), place };
        if program.contains('/') {
            let file = std::path::absolute(cwd.join(program)).unwrap_or_else(|_| cwd.join(program));
            return match file.try_exists() {
                Ok(true) if is_executable(&file) => Ok(file),
                Ok(true) => Err(not_executable(file)),
                _ => Err(not_found("")),
            };
        }
        let candidates: Vec<PathBuf> = path
            .into_iter()
            .flat_map(std::env::split_paths)
            .map(|dir| cwd.join(dir).join(program))
            .filter(|file| file.is_file())
            .collect();
        match candidates.iter().find(|file| is_executable(file)) {
            Some(file) => Ok(std::path::absolute(file).unwrap_or_else(|_| file.clone())),
            None => Err(candidates.into_iter().next().map_or_else(|| not_found(" in PATH"), not_executable)),
        }
    }
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

impl Process {
    /// The ends of the pipes that the command writes to; nothing the second time.
    pub(super) fn take_output(&mut self) -> (Option<ChildStdout>, Option<ChildStderr>) {
        (self.child.stdout.take(), self.child.stderr.take())
    }

    /// Waits for the command's end; may be given up and called again.
    pub(super) async fn wait(&mut self) -> io::Result<Exit> {
        let status = self.child.wait().await?;
        Ok(match (status.code(), status.signal()) {
            // The guard says so of a command that a signal ended.
            (Some(code @ 129..=192), _) if self.is_guarded => Exit::Signal(code - 128),
            (Some(code), _) => Exit::Code(code),
            (None, signal) => Exit::Signal(signal.unwrap_or_default()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::runner::testing::attempt;

    #[test]
    fn nothing_of_our_environment_is_passed_on_but_what_the_list_names() {
        let suite = Suite { pass_env: vec!["CARGO_HOME".to_owned()], ..Suite::default() };
        let attempt = attempt("command", &serde_json::json!({"suite": "s"}));
        let launch = Launch {
            name: "s",
            suite: &suite,
            params: &BTreeMap::new(),
            only: None,
            job: &attempt.job,
            guard: None,
        };
        let ours = [
            "PATH",
            "HOME",
            "LC_ALL",
            "CARGO_HOME",
            "TIDINGS_REDIS",
            "TIDINGS_AUTH__HS256_SECRET",
            "REDIS_URL",
            "AWS_SECRET_ACCESS_KEY",
            "LD_PRELOAD",
            "TIDINGS_TEST_ID",
        ];
        let env = launch.environment(ours.iter().map(|name| (name.into(), "ours".into())), None);
        let names: Vec<_> = env.keys().map(|name| name.to_str().unwrap()).collect();
        let expected =
            ["CARGO_HOME", "HOME", "LC_ALL", "PATH", "TIDINGS_ATTEMPT", "TIDINGS_JOB_ID", "TIDINGS_TEST_ID"];
        assert_eq!(names, expected);
        assert_eq!(env[OsStr::new("TIDINGS_TEST_ID")], "test_1");
        let identity = Identity {
            uid: 1,
            gid: 1,
            env: [("HOME", "/h"), ("USER", "u"), ("LOGNAME", "u"), ("SHELL", "/s")]
                .map(|(name, value)| (name, value.to_owned())),
        };
        let env = launch.environment([("HOME".into(), "/root".into())].into_iter(), Some(&identity));
        assert_eq!(env[OsStr::new("HOME")], "/h");
    }
}
