//! What a verification reports: plain values, which name a place in the file and say what is wrong there.
//!
//! A finding says what is so and not what to do. What follows is the same for nearly all of them: a damaged record is a
//! miss, is computed once more and stored, and the next compaction leaves the damaged one out. A finding is no error of
//! the verification: that fails only if it cannot read.

use std::fmt;

/// What a verification found, from [`MmapCache::verify`](crate::MmapCache::verify).
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
/// cache.table::<str, u64>("sizes").insert("a.txt", &17)?;
/// let report = cache.verify()?;
/// assert!(report.records > 0 && report.findings.is_empty());
/// # Ok::<(), persist_cache::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Verification {
    /// Records that were read.
    pub records: u64,
    /// What is wrong; empty for a healthy file. At most a thousand are listed.
    pub findings: Vec<Finding>,
}

/// Something that is wrong, and the offset in the file where it is. `Display` says it in words.
///
/// # Examples
/// ```
/// # fn show(report: &persist_cache::Verification) {
/// for finding in &report.findings {
///     eprintln!("{finding}"); // the record at 12352 fails its check
/// }
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// A word of the header fails its check.
    Header {
        /// Where the word is.
        offset: u64,
    },
    /// Bytes that should be records and are none.
    Torn {
        /// Where they begin.
        offset: u64,
        /// How many they are.
        bytes: u64,
    },
    /// A record whose payload fails its check.
    Corrupt {
        /// Where the record begins.
        offset: u64,
    },
    /// A healthy record that the index does not lead to: a miss.
    Unreachable {
        /// Where the record begins.
        offset: u64,
    },
    /// An index slot that leads to no record: a miss.
    Astray {
        /// Where the slot leads.
        offset: u64,
    },
    /// The file ends before its log.
    Truncated {
        /// Where the log should end.
        offset: u64,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Header { offset } => write!(f, "the header word at {offset} fails its check"),
            Finding::Torn { offset, bytes } => write!(f, "{bytes} bytes at {offset} are no record"),
            Finding::Corrupt { offset } => write!(f, "the record at {offset} fails its check"),
            Finding::Unreachable { offset } => {
                write!(f, "the record at {offset} is not in the index")
            }
            Finding::Astray { offset } => {
                write!(f, "the index leads to {offset}, where no record is")
            }
            Finding::Truncated { offset } => write!(f, "the file ends before {offset}"),
        }
    }
}

/// Findings that are listed at most.
pub(super) const FINDINGS_MAX: usize = 1000;

impl Verification {
    /// Notes a finding, unless there are enough: a file of a damaged terabyte is not to fill the memory with them.
    pub(super) fn find(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }
}
