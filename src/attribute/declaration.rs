//! What the expansion of `#[cache]` says of its function.
#![expect(missing_docs, reason = "public for expansions alone, where the attribute is documented")]

use std::any::TypeId;
use std::path::PathBuf;
use std::time::Duration;

/// What the attribute knows of its function. Expressions are evaluated when it is first called.
pub struct Declaration {
    /// An item inside the function or its companion...
    pub here: fn() -> TypeId,
    /// ...its full name...
    pub place: fn() -> &'static str,
    /// ...the end of that name, which is not the function's...
    pub tail: &'static str,
    /// ...and the name that is.
    pub name: &'static str,
    /// The module it is in, and the place in the source.
    pub module: &'static str,
    pub at: &'static str,
    /// The package it is in, if cargo or the like says so...
    pub package: Option<&'static str>,
    /// ...and of its targets, which may have crates of one name: the directory, by [`folder`]; the name, if
    /// it is an executable.
    pub folder: &'static str,
    pub executable: Option<&'static str>,
    pub version: fn() -> String,
    pub cache: Option<fn() -> String>,
    pub root: Option<fn() -> PathBuf>,
    pub path: Option<fn() -> PathBuf>,
    pub expiry: Option<fn() -> Option<Duration>>,
    pub claim_timeout: Option<fn() -> Duration>,
    pub record_limit: Option<fn() -> u64>,
    /// Whether the program as built counts as its code.
    pub by_program: bool,
}

/// The directory of a package in which a source file is: `src`, `examples`, ... Cargo gives the paths of a
/// workspace's files from the workspace's own directory, and those of others in full. `package` is the
/// package's directory; of what it is called above the package nothing counts.
#[must_use]
pub const fn folder(file: &'static str, package: Option<&str>) -> &'static str {
    let (bytes, package): (&[u8], &[u8]) = match package {
        Some(package) => (file.as_bytes(), package.as_bytes()),
        None => (file.as_bytes(), &[]),
    };
    let is_absolute = matches!(bytes, [b'/', ..]);
    // The longest end of the package's path with which the file's begins; the whole of it, if that is full.
    let (mut start, mut end) = (0, 0);
    while end < package.len() {
        let is_at_name = if is_absolute { end == 0 } else { package[end] == b'/' };
        let from = if is_absolute { end } else { end + 1 };
        if is_at_name && is_below(bytes, package, from) {
            start = package.len() - from + 1;
            break;
        }
        end += 1;
    }
    if is_absolute && start == 0 {
        return "";
    }
    let mut stop = start;
    while stop < bytes.len() && bytes[stop] != b'/' {
        stop += 1;
    }
    file.split_at(stop).0.split_at(start).1
}

/// Whether a path begins with the names of another from a place on, and goes on behind them.
const fn is_below(path: &[u8], other: &[u8], from: usize) -> bool {
    let len = other.len() - from;
    if len == 0 || path.len() <= len || path[len] != b'/' {
        return false;
    }
    let mut at = 0;
    while at < len {
        if path[at] != other[from + at] {
            return false;
        }
        at += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::folder;

    #[test]
    fn a_target_is_known_by_its_directory_in_the_package() {
        let of = |file, package| folder(file, Some(package));
        // From the workspace's directory, which is the package's or not.
        assert_eq!(of("src/main.rs", "/home/me/tool"), "src");
        assert_eq!(of("build.rs", "/home/me/tool"), "build.rs");
        assert_eq!(of("crates/tool/examples/a/main.rs", "/home/me/all/crates/tool"), "examples");
        assert_eq!(of("tool/src/../../shared.rs", "/home/me/all/tool"), "src");
        // In full, wherever the package lies; elsewhere.
        assert_eq!(of("/registry/tool-1.0/src/lib.rs", "/registry/tool-1.0"), "src");
        assert_eq!(of("/target/out/made.rs", "/home/me/tool"), "");
        assert_eq!(of("/registry/tool-1.0.1/src/lib.rs", "/registry/tool-1.0"), "");
        // Without cargo.
        assert_eq!(folder("src/main.rs", None), "src");
        assert_eq!(folder("/home/me/tool.rs", None), "");
        assert_eq!(of("", ""), "");
    }
}
