//! Versions of a function's code. Each edit of a cached function gives it a new scope, so that going
//! back finds what was stored before; but what nobody will go back to would be carried along for ever.
//! So compaction takes a census of the scopes in a file, and retires the versions of a function beyond
//! the newest two, by when something was last stored in them. What this process uses it keeps. Where
//! the program as built is a part of the version, so is each build a version, of tables too. Scopes
//! without values go as well, but for those that tell how old a version is beside others that have some.

use crate::engine::os::list::List;
use crate::engine::os::program::Program;
use std::collections::{HashMap, HashSet};

/// The beginning of a scope's hash, which all of its records have.
pub(crate) type Prefix = [u8; 8];

/// The versions that this process uses: the start of the function's name as a scope has it, and the
/// version. Whatever handle compacts, it keeps them.
static IN_USE: List<(String, String)> = List::new();

/// Notes that this process uses a version of the function at `path`.
pub(crate) fn enroll(path: &str, version: &str) {
    let own = (cached_function(path), version.to_owned());
    IN_USE.find_or_add(|other| *other == own, || own.clone());
}

/// How versions end that are of this process's own program, or of its programs: each shared object may be
/// one.
static PROGRAMS: List<String> = List::new();

/// A version of what belongs to programs as built. From now on this process uses what is theirs.
pub(crate) fn of_programs(version: &str, programs: &[Option<Program>]) -> String {
    let mut suffixes: Vec<String> =
        programs.iter().flatten().map(|program| format!(" program {program}")).collect();
    suffixes.dedup();
    let suffix = suffixes.concat();
    if !suffix.is_empty() {
        PROGRAMS.find_or_add(|own| *own == suffix, || suffix.clone());
    }
    version.to_owned() + &suffix
}

fn is_in_use(name: &[u8], version: &[u8]) -> bool {
    let is_own = |(start, own): &(String, String)| {
        own.as_bytes() == version && name.starts_with(start.as_bytes())
    };
    let mut programs = PROGRAMS.iter();
    programs.any(|suffix| version.ends_with(suffix.as_bytes())) || IN_USE.iter().any(is_own)
}

/// How the name of a cached function's scope begins; its generic parameters follow.
pub(crate) fn cached_function(path: &str) -> String {
    format!("cached {path} ")
}

/// Versions of a function that are kept.
const KEPT: usize = 2;

/// Which scopes the records of a file are of.
#[derive(Default)]
pub(crate) struct Census {
    scopes: HashMap<Prefix, Usage>,
    /// The scope that was counted last: records of one scope lie together.
    current: (Prefix, u64, bool),
}

#[derive(Default)]
struct Usage {
    /// The number of its newest record.
    newest: u64,
    has_values: bool,
    /// What its own record says of it.
    description: Vec<u8>,
}

/// A version of a function: how new it is, and its scopes.
#[derive(Default)]
struct Version {
    newest: u64,
    with_values: Vec<Prefix>,
    empty: Vec<Prefix>,
}

/// The versions of one function.
type Versions<'a> = HashMap<&'a [u8], Version>;

impl Census {
    /// Counts a record: a value, or a scope's own.
    #[inline]
    pub(crate) fn count(&mut self, prefix: Prefix, seq: u64, is_value: bool) {
        if self.current.0 != prefix {
            self.add_current();
            self.current = (prefix, 0, false);
        }
        self.current.1 = self.current.1.max(seq);
        self.current.2 |= is_value;
    }

    /// Adds what was counted of records of one scope that lie side by side.
    fn add_current(&mut self) {
        let (prefix, seq, has_values) = self.current;
        let usage = self.scopes.entry(prefix).or_default();
        usage.newest = usage.newest.max(seq);
        usage.has_values |= has_values;
    }

    /// Takes what a scope's own record says.
    pub(crate) fn describe(&mut self, prefix: Prefix, description: &[u8]) {
        self.scopes.entry(prefix).or_default().description = description.to_vec();
    }

    /// The scopes that are not kept: those of old versions, and those without values.
    pub(crate) fn retired(mut self) -> HashSet<Prefix> {
        self.add_current();
        let mut functions: HashMap<&[u8], Versions<'_>> = HashMap::new();
        let mut retired = HashSet::new();
        for (prefix, usage) in &self.scopes {
            let Some((name, version)) = name_and_version(&usage.description) else {
                // Without a description there is no record either that could be dropped.
                let is_vain = !usage.has_values && !usage.description.is_empty();
                retired.extend(is_vain.then_some(*prefix));
                continue;
            };
            let version = functions.entry(name).or_default().entry(version).or_default();
            version.newest = usage.newest.max(version.newest);
            let scopes =
                if usage.has_values { &mut version.with_values } else { &mut version.empty };
            scopes.push(*prefix);
        }
        for (name, versions) in functions {
            let mut versions: Vec<_> = versions.into_iter().collect();
            versions.sort_unstable_by_key(|(_, version)| std::cmp::Reverse(version.newest));
            let is_kept = |(place, (version, _)): &(usize, (&[u8], Version))| {
                *place < KEPT || is_in_use(name, version)
            };
            let (kept, old): (Vec<_>, Vec<_>) = versions.into_iter().enumerate().partition(is_kept);
            let old = old.into_iter().flat_map(|(_, (_, old))| [old.with_values, old.empty]);
            retired.extend(old.flatten());
            let has_values = kept.iter().any(|(_, (_, kept))| !kept.with_values.is_empty());
            for (_, (_, mut kept)) in kept {
                // One scope is enough to tell that there was such a version.
                if has_values && kept.with_values.is_empty() {
                    kept.empty.sort_unstable();
                    kept.empty.pop();
                }
                retired.extend(kept.empty);
            }
        }
        retired
    }
}

/// The function and version in a scope's description; `None` if it has no versions.
fn name_and_version(description: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, rest) = field(description)?;
    let (version, _) = field(rest)?;
    (!version.is_empty()).then_some((name, version))
}

fn field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(u32::from_le_bytes(*len) as usize)
}

#[cfg(test)]
mod tests {
    use super::{Census, Prefix, enroll, of_programs};
    use crate::engine::os::program::Program;
    use std::collections::HashSet;

    fn description(name: &str, version: &str) -> Vec<u8> {
        let field = |text: &str| [&(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
        [field(name), field(version), field("more")].concat()
    }

    #[test]
    fn the_newest_two_versions_stay_and_what_is_in_use() {
        enroll("used::f", "2");
        let scopes = [
            ("cached used::f <u8>", "1"),
            ("cached used::f <u8>", "2"),
            ("cached used::f <u8>", "3"),
            ("cached used::f <u8>", "4"),
            ("cached used::f <u8>", "5"),
            ("cached other::f <u8>", "2"),
            ("name", ""),
        ];
        let mut census = Census::default();
        for (at, (name, version)) in scopes.iter().enumerate() {
            let prefix: Prefix = [at as u8 + 1; 8];
            census.describe(prefix, &description(name, version));
            census.count(prefix, at as u64 + 1, true);
        }
        census.count([1; 8], 90, true); // The first version was gone back to, and stored to.
        census.count([9; 8], 91, true); // A scope whose own record was lost.
        assert_eq!(census.retired(), HashSet::from([[3; 8], [4; 8]]));
    }

    #[test]
    fn builds_of_a_program_are_versions_of_tables_too() {
        let own = of_programs("", &[Some(Program::of(description as *const ()))]);
        assert_eq!(of_programs("code 1", &[None]), "code 1");
        let others = ["a", "b", "c"].map(|id| format!(" program {id}"));
        let mut census = Census::default();
        for (at, version) in [&own].into_iter().chain(&others).enumerate() {
            let prefix: Prefix = [at as u8 + 1; 8];
            census.describe(prefix, &description("name sizes", version));
            census.count(prefix, at as u64 + 1, true);
        }
        // With a schema: of no program, hence of no version.
        census.describe([9; 8], &description("name sizes", ""));
        census.count([9; 8], 1, true);
        assert_eq!(census.retired(), HashSet::from([[2; 8]]));
    }

    #[test]
    fn what_has_no_values_goes_unless_a_version_beside_it_has_some() {
        let scopes = [
            ("table", "", false),
            ("other table", "", true),
            ("cached empty::f <u8>", "1", false),
            ("cached empty::f <u8>", "2", false),
            ("cached mixed::f <u8>", "1", true),
            ("cached mixed::f <u8>", "2", true),
            // The newest: that it was there makes the first one old.
            ("cached mixed::f <u8>", "3", false),
            ("cached mixed::f <u8>", "3", false),
        ];
        let mut census = Census::default();
        for (at, (name, version, has_values)) in scopes.iter().enumerate() {
            let prefix: Prefix = [at as u8 + 1; 8];
            census.describe(prefix, &description(name, version));
            census.count(prefix, at as u64 + 1, false);
            census.count(prefix, at as u64 + 1, *has_values);
        }
        let retired = [[1; 8], [3; 8], [4; 8], [5; 8], [7; 8]];
        assert_eq!(census.retired(), HashSet::from(retired));
    }

    #[test]
    fn damaged_descriptions_are_of_no_version() {
        for bytes in [&[][..], &[1], &[255, 255, 255, 255, 0], &[0, 0, 0, 0, 9, 0, 0, 0]] {
            let mut census = Census::default();
            (0..4).for_each(|n| census.describe([n; 8], bytes));
            (0..4).for_each(|n| census.count([n; 8], 1, true));
            assert!(census.retired().is_empty());
        }
    }
}
