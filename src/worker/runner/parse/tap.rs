//! The Test Anything Protocol: what `node --test --test-reporter=tap`, `prove -v` and many others print.
//!
//! Test cases are the leaves: a point that closes a subtest only counts if it failed and no point inside of
//! it did. A point marked TODO counts as skipped, whatever it says. Node's own totals, which count otherwise, hold
//! where they come.

mod totals;

use totals::Totals;

use super::tap_line::{Directive, Line, read};
use super::text::{Tail, add, fail, message, name, settle, show};
use super::{Exit, LineParser, MAX_CURRENT};
use crate::model::test::Failure;
use crate::worker::progress::ProgressState;

/// Subtests may be nested this deep; what is deeper is only text.
const MAX_DEPTH: usize = 32;

/// The points seen so far at one indentation.
#[derive(Debug, Clone, Copy)]
struct Level {
    indent: usize,
    points: u64,
    failed: bool,
}

/// The diagnostic block of a point.
#[derive(Debug)]
struct Yaml {
    indent: usize,
    // The next line is the first one of the message.
    wants_message: bool,
    // It says that its point is a suite, which node does not count.
    is_suite: bool,
}

/// Reads TAP.
#[derive(Debug, Default)]
pub(super) struct Tap {
    levels: Vec<Level>,
    // The subtests that are open, by the indentation of their announcement.
    names: Vec<(usize, String)>,
    planned: u64,
    has_plan: bool,
    // Points outside of subtests; what the plans speak of.
    top: u64,
    nested_leaves: u64,
    top_parents: u64,
    bailed: bool,
    is_prove: bool,
    yaml: Option<Yaml>,
    // Where in `state.failures` the newest point stands, and what was said about it.
    failure: Option<usize>,
    output: Tail,
    // The newest point, if it failed by its subtests alone.
    parent: Option<String>,
    totals: Totals,
}

impl LineParser for Tap {
    fn line(&mut self, line: &str, state: &mut ProgressState) {
        let (indent, meaning) = read(line);
        if self.in_yaml(line, indent, &meaning, state) {
            return;
        }
        match meaning {
            // With this `prove` closes a file whose points have been told before.
            Line::Point { ok: true, .. } if self.is_prove && line.trim_end() == "ok" => {}
            Line::Point { ok, description, directive } => {
                self.point(indent, ok, description, directive, state);
            }
            Line::Plan(count) => {
                self.failure = None;
                if indent == 0 {
                    self.totals.due(true);
                    self.has_plan = true;
                    self.planned = add(self.planned, count);
                    self.show(state);
                }
            }
            Line::BailOut(reason) => {
                self.bailed = true;
                self.failure = None;
                state.message = Some(message(line));
                fail(state, failure("Bail out!", reason));
            }
            Line::Subtest(title) => self.subtest(indent, title, state),
            Line::Comment(comment) => {
                if indent == 0 {
                    self.totals.comment(comment, state);
                }
                self.diagnostic(comment, state);
            }
            // It stands below its point; at the margin, `---` is somebody's ruler.
            Line::YamlStart if indent > 0 => {
                self.yaml = Some(Yaml { indent, wants_message: false, is_suite: false })
            }
            Line::YamlStart | Line::YamlEnd => {}
            Line::Other => {
                if let Some(file) = file_of_prove(line) {
                    self.is_prove = true;
                    state.message = Some(message(file));
                }
            }
        }
    }

    fn finish(&mut self, _exit: Exit, state: &mut ProgressState) {
        // The protocol says so: fewer points than planned is a failure, whatever the exit code.
        if self.has_plan && self.top < self.planned && !self.bailed {
            let text = format!("{} were planned, only {} ran", self.planned, self.top);
            fail(state, failure("plan", &text));
            state.counts.total = Some(state.counts.done());
        } else {
            self.show(state);
        }
        settle(state);
    }
}

impl Tap {
    fn point(
        &mut self,
        indent: usize,
        ok: bool,
        description: &str,
        directive: Option<Directive>,
        state: &mut ProgressState,
    ) {
        (self.failure, self.parent) = (None, None);
        if indent == 0 {
            self.totals.due(false);
        }
        let (mut children, mut child_failed) = (0, false);
        while let Some(level) = self.levels.pop_if(|l| l.indent > indent) {
            children = add(children, level.points);
            child_failed |= level.failed;
        }
        while self.names.pop_if(|(i, _)| *i >= indent).is_some() {}
        let is_parent = children > 0;
        let path = self.path(description);
        if !self.is_prove {
            state.message = Some(path.clone());
        }
        let failed = !ok && directive.is_none();
        self.count(indent, is_parent);
        self.note(indent, failed || child_failed);
        if failed && !(is_parent && child_failed) {
            self.failure = Some(state.failures.len());
            self.output = Tail::default();
            fail(state, failure(&path, ""));
        } else if failed {
            self.parent = Some(path);
        } else if !is_parent && directive.is_some() {
            state.counts.skipped = add(state.counts.skipped, 1);
        } else if !is_parent && ok {
            state.counts.passed = add(state.counts.passed, 1);
        }
        self.show_current(state);
        self.show(state);
    }

    fn count(&mut self, indent: usize, is_parent: bool) {
        match (indent, is_parent) {
            (0, true) => {
                self.top = add(self.top, 1);
                self.top_parents = add(self.top_parents, 1);
            }
            (0, false) => self.top = add(self.top, 1),
            (_, true) => {}
            (_, false) => self.nested_leaves = add(self.nested_leaves, 1),
        }
    }

    fn note(&mut self, indent: usize, failed: bool) {
        if let Some(level) = self.levels.last_mut().filter(|l| l.indent == indent) {
            level.points = add(level.points, 1);
            level.failed |= failed;
        } else if self.levels.len() < MAX_DEPTH {
            self.levels.push(Level { indent, points: 1, failed });
        }
    }

    fn subtest(&mut self, indent: usize, title: &str, state: &mut ProgressState) {
        self.failure = None;
        while self.names.pop_if(|(i, _)| *i >= indent).is_some() {}
        if self.names.len() < MAX_DEPTH {
            self.names.push((indent, name(&unescape(title))));
        }
        self.show_current(state);
    }

    /// The line belongs to a diagnostic block.
    fn in_yaml(&mut self, line: &str, indent: usize, meaning: &Line<'_>, state: &mut ProgressState) -> bool {
        let Some(yaml) = &mut self.yaml else { return false };
        let ends = *meaning == Line::YamlEnd && indent <= yaml.indent;
        // A block without an end does not swallow the points after it.
        let broken = indent < yaml.indent && !line.trim().is_empty();
        if ends || broken {
            self.yaml = None;
            return ends;
        }
        let text = line.get(yaml.indent..).unwrap_or("");
        yaml.is_suite |= text == "type: 'suite'";
        if text == "failureType: 'subtestsFailed'"
            && !yaml.is_suite
            && let Some(parent) = self.parent.take()
        {
            self.totals.parent(failure(&parent, "its subtests failed"));
        }
        if yaml.wants_message && !text.trim().is_empty() {
            yaml.wants_message = false;
            self.set_message(text, state);
        } else if let Some(value) = text.strip_prefix("error: ").or_else(|| text.strip_prefix("message: ")) {
            if value.starts_with(['|', '>']) {
                yaml.wants_message = true;
            } else {
                self.set_message(value.trim().trim_matches(['\'', '"']), state);
            }
        }
        self.add_output(text, state);
        true
    }

    fn diagnostic(&mut self, comment: &str, state: &mut ProgressState) {
        if self.failure.is_some() && !comment.trim().is_empty() {
            self.set_message(comment, state);
            self.add_output(comment, state);
        }
    }

    /// The first thing that is said about a failure is its message.
    fn set_message(&self, text: &str, state: &mut ProgressState) {
        if let Some(failure) = self.failure.and_then(|i| state.failures.get_mut(i))
            && failure.message.is_empty()
        {
            failure.message = message(text);
        }
    }

    fn add_output(&mut self, text: &str, state: &mut ProgressState) {
        if let Some(failure) = self.failure.and_then(|i| state.failures.get_mut(i)) {
            self.output.line(text);
            failure.output = self.output.text();
        }
    }

    fn path(&self, description: &str) -> String {
        let mut path: Vec<&str> = self.names.iter().map(|(_, n)| n.as_str()).collect();
        let description = unescape(description);
        path.push(if description.is_empty() { "unnamed" } else { &description });
        name(&path.join(" > "))
    }

    fn show_current(&self, state: &mut ProgressState) {
        state.current.clear();
        if !self.names.is_empty() {
            let from = self.names.len().saturating_sub(MAX_CURRENT);
            let names: Vec<&str> = self.names[from..].iter().map(|(_, n)| n.as_str()).collect();
            state.current.push(name(&names.join(" > ")));
        }
    }

    fn show(&self, state: &mut ProgressState) {
        // Whose totals were told last is done, unless more comes.
        if self.has_plan && !self.totals.were_told {
            let leaves = add(self.planned, self.nested_leaves).saturating_sub(self.top_parents);
            state.counts.total = Some(leaves);
        }
        show(state);
    }
}

/// The file that `prove -v` announces with `t/a.t .. `.
fn file_of_prove(line: &str) -> Option<&str> {
    let (file, rest) = line.split_once(" ..")?;
    let rest = rest.trim_start_matches('.').trim();
    (!file.contains(' ') && (rest.is_empty() || rest.starts_with("skipped:"))).then_some(file)
}

fn failure(title: &str, text: &str) -> Failure {
    Failure { name: name(title), message: message(text), output: None, history: None }
}

fn unescape(text: &str) -> String {
    text.replace(r"\#", "#").replace(r"\\", r"\")
}
