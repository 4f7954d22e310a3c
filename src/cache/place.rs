//! Where caches lie: the root of named ones, and their files in it.

use super::options::{OpenOptions, Place};
use crate::engine::os::directory::make_root;
use crate::engine::os::place::AccessMode;
use crate::error::{Error, Result};
use once_cell::race::OnceBox;
use std::path::PathBuf;

impl OpenOptions {
    /// Where a cache lies; makes the root of a named one.
    pub(crate) fn locate(&self, place: &Place) -> Result<PathBuf> {
        let name = match place {
            Place::Named(name) => name,
            Place::At(path) => return std::path::absolute(path).map_err(Error::io("find", path)),
        };
        let root = match &self.root {
            Some(root) => std::path::absolute(root).map_err(Error::io("find", root))?,
            None => default_root()?,
        };
        if !self.is_read_only {
            make_root(&root, self.access == AccessMode::Checked)?;
        }
        Ok(root.join(file_name(name)))
    }

    /// The file of a named cache, if it is there.
    pub(crate) fn find(name: &str) -> Result<Option<PathBuf>> {
        let path = default_root()?.join(file_name(name));
        let is_there = path.try_exists().map_err(Error::io("look at", &path))?;
        Ok(is_there.then_some(path))
    }
}

/// Where named caches lie; the same for as long as the process lives, wherever it goes.
fn default_root() -> Result<PathBuf> {
    static ROOT: OnceBox<PathBuf> = OnceBox::new();
    if let Some(root) = ROOT.get() {
        return Ok(root.clone());
    }
    let root = match std::env::var_os("PERSIST_CACHE_DIR").filter(|dir| !dir.is_empty()) {
        Some(root) => PathBuf::from(root),
        None => PathBuf::from(".persist_cache"),
    };
    let root = std::path::absolute(&root).map_err(Error::io("find", &root))?;
    Ok(ROOT.get_or_init(|| Box::new(root.clone())).clone())
}

/// The file of a cache: what can be kept of its name for people to see, and a hash to tell any two
/// names apart. It begins with a letter or digit.
fn file_name(name: &str) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let slug: String = name.chars().take(40).map(keep).collect();
    let hash = blake3::hash(name.as_bytes()).to_hex();
    match slug.trim_matches('-') {
        "" => format!("{}.pcache", &hash[..24]),
        slug => format!("{slug}-{}.pcache", &hash[..24]),
    }
}

#[cfg(test)]
mod tests {
    use super::file_name;
    use std::collections::HashSet;
    use std::path::Path;

    #[test]
    fn any_name_is_one_file_inside_the_root() {
        let long = "x".repeat(1000);
        let names = [
            "",
            ".",
            "..",
            "/",
            "../../etc",
            "a/b",
            "a-b",
            "A-B",
            "ünïcödé",
            "\0",
            "-rf",
            "ü",
            &long,
        ];
        let files: HashSet<String> = names.iter().map(|name| file_name(name)).collect();
        assert_eq!(files.len(), names.len());
        for file in files {
            assert_eq!(Path::new("/root").join(&file).parent(), Some(Path::new("/root")));
            assert!(file.len() < 100, "{file}");
            // Else a command that is given the files of a directory takes one for an option.
            assert!(file.starts_with(|c: char| c.is_ascii_alphanumeric()), "{file}");
        }
    }
}
