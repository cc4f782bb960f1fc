//! Embeds the page: makes a table of what `dashboard/build` left in `dashboard/dist`, empty where it was not run.

use std::collections::hash_map::DefaultHasher;
use std::fmt::Write as _;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::{env, fs, io};

const DIST: &str = "dashboard/dist";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={DIST}");
    let dist =
        Path::new(&env::var("CARGO_MANIFEST_DIR").expect("cargo says where the package is")).join(DIST);
    let mut files = Vec::new();
    if dist.is_dir() {
        find(&dist, &mut files)?;
    }
    files.sort();
    let mut table = String::from("&[\n");
    for file in files.iter().filter(|file| !is_packed(file)) {
        let name = file.strip_prefix(&dist).expect("it was found there").display().to_string();
        let mut hasher = DefaultHasher::new();
        fs::read(file)?.hash(&mut hasher);
        let _ = writeln!(
            table,
            "File {{ name: {name:?}, hash: \"{:016x}\", plain: include_bytes!({:?}), brotli: {}, gzip: {} }},",
            hasher.finish(),
            file.display().to_string(),
            packed(file, "br"),
            packed(file, "gz"),
        );
    }
    table.push(']');
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo says where to write"));
    fs::write(out.join("page_files.rs"), table)
}

/// All files below `directory`, but not what is hidden.
fn find(directory: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
            continue;
        }
        if path.is_dir() {
            find(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

fn is_packed(file: &Path) -> bool {
    file.extension().is_some_and(|end| end == "br" || end == "gz")
}

/// The same file, compressed, if that is there.
fn packed(file: &Path, end: &str) -> String {
    let file = format!("{}.{end}", file.display());
    if Path::new(&file).is_file() { format!("Some(include_bytes!({file:?}))") } else { "None".to_owned() }
}
