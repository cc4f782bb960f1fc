//! The layers of `src/`: a lower one never imports a higher one, and each library has its own rooms.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The layers, lowest first. A module that is new needs a place here.
const LAYERS: [&[&str]; 7] = [
    &["model"],
    &["config", "fault", "limits", "metrics", "telemetry", "tls", "traces", "tasks"],
    // Only the files `broker.rs` and `queue.rs`, and what they are made of beside their back ends.
    &["broker", "queue", "presence", "inbox", "sync", "quota", "revocation"],
    &["store", "redis"],
    &["publish", "fanout", "notify", "worker", "upkeep", "auth", "schedules"],
    &["socket", "http", "client", "listener", "dashboard", "reporter"],
    &["app", "bin", "kit", "lib"],
];
/// The layer of the back ends, which are folders or files below the seams.
const BACK_ENDS: usize = 3;
const BACK_END_NAMES: [&str; 2] = ["embedded", "redis"];

/// A use of a higher layer that is allowed, and why.
const ALLOWED: [(&str, &str, &str); 0] = [];

/// Libraries, and the modules that may mention them.
const LIBRARIES: [(&str, &[&str]); 2] =
    [("socketioxide", &["socket"]), ("axum", &["http", "listener", "app"])];
/// Libraries that a module never mentions, beside those above.
const FORBIDDEN: [(&str, &[&str]); 1] = [("model", &["tokio", "rusqlite", "redis"])];

/// A source file without its comments and its unit tests.
struct Source {
    /// Below `src/`.
    path: String,
    code: String,
}

impl Source {
    fn module(&self) -> &str {
        self.path.split(['/', '.']).next().expect("a path is not empty")
    }

    /// Which layer it belongs to.
    fn layer(&self) -> usize {
        let mut names = self.path.split(['/', '.']);
        let module = names.next().expect("a path is not empty");
        layer_of(module, names.next().unwrap_or_default())
            .unwrap_or_else(|| panic!("src/{} has no layer: give `{module}` a place in LAYERS", self.path))
    }

    /// What it uses of this crate: the path after `crate::`, two names deep.
    fn uses(&self) -> BTreeSet<String> {
        let mut uses = BTreeSet::new();
        for (at, _) in self.code.match_indices("crate::") {
            let rest = &self.code[at + "crate::".len()..];
            match rest.strip_prefix('{') {
                Some(group) => uses.extend(entries(group).iter().map(|entry| path(entry))),
                None => {
                    uses.insert(path(rest));
                }
            }
        }
        uses
    }

    fn mentions(&self, library: &str) -> bool {
        self.code.match_indices(library).any(|(at, _)| {
            let is_name = |c: char| c.is_alphanumeric() || c == '_';
            let before = self.code[..at].chars().next_back().is_some_and(is_name);
            let after = self.code[at + library.len()..].chars().next().is_some_and(is_name);
            !before && !after
        })
    }
}

fn layer_of(module: &str, child: &str) -> Option<usize> {
    let layer = LAYERS.iter().position(|modules| modules.contains(&module))?;
    let is_seam = layer == BACK_ENDS - 1;
    Some(if is_seam && BACK_END_NAMES.contains(&child) { BACK_ENDS } else { layer })
}

/// The first two names of a path in code.
fn path(code: &str) -> String {
    let mut names = code.split("::").map(|name| {
        let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
        (&name[..end], end == name.len())
    });
    let mut path = String::new();
    if let Some((first, whole)) = names.next() {
        path.push_str(first);
        if let Some((second, _)) = names.next().filter(|_| whole) {
            path.push_str("::");
            path.push_str(second);
        }
    }
    path
}

/// The entries of a `{…}` in a use, of which only the beginning matters.
fn entries(group: &str) -> Vec<String> {
    let (mut depth, mut entries) = (0, vec![String::new()]);
    for c in group.chars() {
        match c {
            '}' if depth == 0 => break,
            ',' if depth == 0 => entries.push(String::new()),
            _ => {
                depth += i32::from(c == '{') - i32::from(c == '}');
                entries.last_mut().expect("there is one").push(c);
            }
        }
    }
    let trimmed = entries.iter().map(|entry| entry.trim().to_owned());
    trimmed.filter(|entry| !entry.is_empty()).collect()
}

/// Every file below `dir` that is part of the program.
fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("the sources can be read") {
        let path = entry.expect("the sources can be read").path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs")
            && path.file_stem().is_some_and(|s| s != "tests")
        {
            found.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    files(&root, &mut found);
    let read = |file: &PathBuf| {
        let text = fs::read_to_string(file).expect("a source file is text");
        // Unit tests may reach for what they like; they stand at the end.
        let program = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let code: Vec<_> = program.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
        let path = file.strip_prefix(&root).expect("it is below src").to_string_lossy().replace('\\', "/");
        Source { path, code: code.join("\n") }
    };
    found.iter().map(read).collect()
}

#[test]
fn a_lower_layer_never_imports_a_higher_one() {
    let mut wrong = Vec::new();
    let mut excused = BTreeSet::new();
    for source in sources() {
        let layer = source.layer();
        for used in source.uses() {
            let (module, child) = used.split_once("::").unwrap_or((&used, ""));
            // A name that is no module stands in lib.rs itself, such as a macro.
            let Some(other) = layer_of(module, child) else { continue };
            let excuse = ALLOWED.iter().find(|(file, what, _)| *file == source.path && *what == used);
            if let Some((file, ..)) = excuse {
                excused.insert(*file);
            } else if other > layer {
                wrong.push(format!("src/{} (layer {layer}) uses crate::{used} (layer {other})", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(excused.len(), ALLOWED.len(), "an exception that nothing needs goes away: {excused:?}");
}

#[test]
fn each_library_stays_in_its_rooms() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (library, rooms) in LIBRARIES {
            if !rooms.contains(&source.module()) && source.mentions(library) {
                wrong.push(format!("src/{} mentions {library}, which belongs to {rooms:?}", source.path));
            }
        }
        for (module, libraries) in FORBIDDEN {
            for library in libraries.iter().filter(|l| source.module() == module && source.mentions(l)) {
                wrong.push(format!("src/{} mentions {library}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn unsafe_code_is_forbidden_in_every_package() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // The lints of a package hold for its tests, benchmarks and examples, too.
    for package in ["Cargo.toml", "tests/fuzz/Cargo.toml"] {
        let manifest = fs::read_to_string(root.join(package)).expect("a manifest");
        let manifest: toml::Table = toml::from_str(&manifest).expect("TOML");
        assert_eq!(manifest["lints"]["rust"]["unsafe_code"].as_str(), Some("forbid"), "{package}");
    }
}

#[test]
fn the_check_sees_what_it_is_to_see() {
    let source = |code: &str| Source { path: "broker.rs".to_owned(), code: code.to_owned() };
    let uses = |code: &str| source(code).uses().into_iter().collect::<Vec<_>>();
    assert_eq!(uses("use crate::store::StoreError;"), ["store::StoreError"]);
    assert_eq!(uses("use crate::{metrics, model::{A, b::C}, app};"), ["app", "metrics", "model::"]);
    assert_eq!(
        uses("fn f() -> crate::http::Answer<u8> { crate::tasks::go() }"),
        ["http::Answer", "tasks::go"]
    );
    assert_eq!(uses("pub(crate) use x::y;"), [""; 0]);
    assert!(source("use axum::Router;").mentions("axum") && !source("use axum_extra::X;").mentions("axum"));
    assert_eq!(layer_of("broker", "embedded"), Some(BACK_ENDS));
    assert_eq!((layer_of("broker", "append"), layer_of("nothing", "")), (Some(2), None));
}
