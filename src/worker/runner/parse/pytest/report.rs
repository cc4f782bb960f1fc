//! The failures that pytest tells of at its end: a block for each, then a line for each.

use super::super::text::{Tail, message, name};
use crate::model::test::Failure;
use crate::worker::progress::ProgressState;

#[derive(Debug)]
struct Block {
    title: String,
    message: String,
    output: Tail,
}

/// Reads the blocks of `=== FAILURES ===` and `=== ERRORS ===`.
#[derive(Debug, Default)]
pub(super) struct Report {
    block: Option<Block>,
}

impl Report {
    /// Takes a line of either part.
    pub(super) fn line(&mut self, line: &str, state: &mut ProgressState) {
        if let Some(title) = title(line) {
            self.finish(state);
            self.block = Some(Block { title, message: String::new(), output: Tail::default() });
        } else if let Some(block) = &mut self.block {
            block.output.line(line);
            if let Some(error) = line.strip_prefix("E ").filter(|_| block.message.is_empty()) {
                block.message = message(error);
            }
        }
    }

    /// Adds the open block to the failure that it belongs to.
    pub(super) fn finish(&mut self, state: &mut ProgressState) {
        let Some(block) = self.block.take() else { return };
        let output = block.output.text();
        let known =
            state.failures.iter_mut().find(|f| f.output.is_none() && is_title_of(&block.title, &f.name));
        match known {
            Some(failure) => (failure.message, failure.output) = (block.message, output),
            // Dots do not name the tests; the summary at the end counts them.
            None => state.note_failure(Failure {
                name: block.title,
                message: block.message,
                output,
                history: None,
            }),
        }
    }
}

/// Takes a line of the short test summary: `FAILED test_a.py::test_bad - assert 1 == 2`. Which test it names.
pub(super) fn summary_line(line: &str, state: &mut ProgressState) -> Option<String> {
    let rest = line.strip_prefix("FAILED ").or_else(|| line.strip_prefix("ERROR "))?;
    let (id, text) = rest.split_once(" - ").unwrap_or((rest, ""));
    let id = name(id);
    let failures = &mut state.failures;
    let known = failures
        .iter()
        .position(|f| f.name == id)
        .or_else(|| failures.iter().position(|f| !f.name.contains("::") && is_title_of(&f.name, &id)));
    let Some(failure) = known.and_then(|i| failures.get_mut(i)) else {
        let (name, message) = (id.clone(), message(text));
        state.note_failure(Failure { name, message, output: None, history: None });
        return Some(id);
    };
    failure.name.clone_from(&id);
    if failure.message.is_empty() {
        failure.message = message(text);
    }
    Some(id)
}

/// `___ TestC.test_in_class ___`, `___ ERROR at setup of test_error ___`: the name inside.
fn title(line: &str) -> Option<String> {
    let inner = line.strip_prefix('_')?.strip_suffix('_')?;
    let inner = inner.trim_matches('_').strip_prefix(' ')?.strip_suffix(' ')?;
    let without = ["ERROR at setup of ", "ERROR at teardown of ", "ERROR collecting "];
    let found = without.iter().find_map(|prefix| inner.strip_prefix(prefix));
    Some(name(found.unwrap_or(inner)))
}

/// Whether a block's title, such as `TestC.test_a`, means the test `test_c.py::TestC::test_a`.
fn is_title_of(title: &str, id: &str) -> bool {
    let Some((_, path)) = id.split_once("::") else { return title == id };
    // Only the classes are joined by dots, not what stands in the parameters.
    let (head, parameters) = path.split_at(path.find('[').unwrap_or(path.len()));
    title.strip_suffix(parameters) == Some(&head.replace("::", "."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_belongs_to_its_test() {
        assert!(is_title_of("TestC.test_a[x::y]", "t/a.py::TestC::test_a[x::y]"));
        assert!(is_title_of("test_a", "a.py::test_a"));
        assert!(is_title_of("test_c.py", "test_c.py"));
        assert!(!is_title_of("test_b", "a.py::test_a"));
        assert_eq!(title("_____ ERROR at setup of test_error _____").as_deref(), Some("test_error"));
        assert_eq!(title("_ _ _ _ _ _ _"), Some("_ _ _ _ _".to_owned()));
        assert_eq!(title("__"), None);
    }
}
