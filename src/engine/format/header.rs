//! Page 0 of a file. It holds the superblock, which has a checksum and never changes; the provenance; the words that
//! readers load with every hit; and the words of the writer.
//!
//! ```text
//!     0   superblock       256 bytes   never changes; a checksum of its own
//!   256   provenance        64 bytes   changes when the file is made sound; a checksum of its own
//!   512   STATE INDEX                  the readers' line: changes when the file or the index is left
//!   640   TAIL .. LAST                 the writer's first line: changes with every put
//!   704   ENTRIES .. RECLAIMED         the second: counts, and how far growth has come
//!   768   CLEARED .. FAILED            the third: seldom
//! ```
//!
//! The writer's words have cache lines of their own, so that a put takes no line from a reader whose hits are of
//! records that it has met. Only a first touch and a miss go there.
//!
//! Each word is sealed with a check (see [`seal`](super::seal)), but for STATE, the three that name a table, and
//! RECLAIMED. STATE is one of three numbers that lie far apart. A table is believed only where a table's head stands
//! before it ([`is_table`](crate::engine::file::trust::is_table)). A wrong RECLAIMED costs space until the next
//! compaction.
//!
//! The three parts change at different times, so no check covers two of them.

use super::slot::Table;
use super::{HEADER_SIZE, checksum, field};

/// Buckets of the first index, which lies behind the header: a small cache has no other.
pub(crate) const FIRST_BUCKETS: u64 = 64;
/// The version of the format that this code creates, and the newest it reads.
pub(crate) const VERSION: u32 = 1;

/// A non-text byte, the name, a line ending that text transfers mangle, and the end of a DOS file.
pub(crate) const MAGIC: [u8; 8] = *b"\x89PCACH\r\n";

/// The words that change: their places in the file.
pub(crate) mod word {
    /// Reader's line: whether the file is still the cache. Written by compaction and deletion; and set to LIVE by the
    /// holder of the lock who comes after one that died at that, and by recovery.
    pub(crate) const STATE: u64 = 512;
    /// Reader's line: the [`Table`](crate::engine::format::slot::Table) of the index.
    pub(crate) const INDEX: u64 = 520;
    /// Writer's lines: where the next record goes; all below is published and never changes.
    pub(crate) const TAIL: u64 = 640;
    /// Records below it are in the index. It is no greater than the tail, and each hold of the lock begins by bringing
    /// it up to that.
    pub(crate) const APPLIED: u64 = 648;
    /// The last sequence number given out.
    pub(crate) const SEQ: u64 = 656;
    /// The log may be stored to below this: what lies between the tail and here has its disk space (but for a moment in
    /// [`append_table`](crate::engine::log::journal::Journal::append_table)).
    pub(crate) const ALLOCATED: u64 = 664;
    /// A computation that began before this sequence number was given out is not stored: see
    /// [`PutCondition`](crate::engine::store::put::PutCondition).
    pub(crate) const BARRIER: u64 = 672;
    /// Records below it are on the device. It rises when a sync has ended, to the tail of when it began.
    pub(crate) const SYNCED: u64 = 680;
    /// The last sequence number that was published. Below [`SEQ`], somebody is writing behind the tail,
    /// or died there.
    pub(crate) const PUBLISHED: u64 = 688;
    /// The offset of the last record, or zero.
    pub(crate) const LAST: u64 = 696;
    /// How many values are reachable. This and the two behind it may be off by one record for each death in the midst
    /// of an append, and decide nothing but statistics and when the index grows.
    pub(crate) const ENTRIES: u64 = 704;
    /// The bytes of their records.
    pub(crate) const LIVE: u64 = 712;
    /// Slots of the index that are not empty. Dead ones that growth left behind count on.
    pub(crate) const USED: u64 = 720;
    /// The table that the index grows into, or none.
    pub(crate) const PENDING: u64 = 728;
    /// Buckets of the index that have been moved into it.
    pub(crate) const CURSOR: u64 = 736;
    /// Bytes of it that have their disk space.
    pub(crate) const GROWN: u64 = 744;
    /// A former table whose disk space is being given back, or none.
    pub(crate) const RETIRED: u64 = 752;
    /// Bytes of it that have been given back.
    pub(crate) const RECLAIMED: u64 = 760;
    /// The sequence number of the last clear: what has no higher one is dead.
    pub(crate) const CLEARED: u64 = 768;
    /// The offset of the last checkpoint, or zero.
    pub(crate) const CHECKPOINT: u64 = 776;
    /// Whether a sync of the file has failed. The system then forgets what it could not write, and says so
    /// once: no later sync of the same file is worth anything.
    pub(crate) const FAILED: u64 = 784;

    /// All sealed words, with what they are in a new file whose log begins at the given offset. Of the others STATE
    /// is LIVE there, INDEX is the first table, and the rest are zero.
    pub(crate) const fn sealed(log_start: u64) -> [(u64, u64); 16] {
        [
            (TAIL, log_start),
            (APPLIED, log_start),
            (SEQ, 0),
            (ALLOCATED, log_start),
            (BARRIER, 0),
            (SYNCED, 0),
            (PUBLISHED, 0),
            (LAST, 0),
            (ENTRIES, 0),
            (LIVE, 0),
            (USED, 0),
            (CURSOR, 0),
            (GROWN, 0),
            (CLEARED, 0),
            (CHECKPOINT, 0),
            (FAILED, 0),
        ]
    }
}

/// What the state word says; far apart in bits, so that damage is not taken for a state.
pub(crate) mod state {
    /// The file is the cache.
    pub(crate) const LIVE: u64 = 0x4556_494c_1db7_52e6;
    /// A rename or unlink is under way; which file lies at the path decides.
    pub(crate) const MOVING: u64 = 0x474e_4956_4f4d_a95c;
    /// The cache is at its path, not here.
    pub(crate) const MOVED: u64 = 0x4445_564f_4de3_06b1;
}

/// What never changes in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Superblock {
    /// Of this file; compaction makes a new one.
    pub(crate) file_id: [u8; 16],
    /// Of this cache; compaction keeps it, deletion ends it.
    pub(crate) cache_id: [u8; 16],
    /// Keys all hashes and checks; secret, so that inputs cannot be chosen against it.
    pub(crate) seed: u64,
    /// Where the log begins.
    pub(crate) log_start: u64,
    /// The index that the file began with.
    pub(crate) first_index: Table,
    /// How many compactions lie between the cache's first file and this one.
    pub(crate) generation: u64,
    /// Bits of rkyv's relative pointers: 16, 32 or 64.
    pub(crate) pointer_width: u32,
    /// It has features that stop writers who do not know them.
    pub(crate) is_for_reading: bool,
}

/// Why bytes are no header that this code can use. A blank file may be replaced by a new one; any other is left as it
/// is, and opening it is an error that says what was found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    /// All zero: a power cut came before the first write reached the device.
    Blank,
    /// Other bytes than the magic.
    Alien([u8; 8]),
    /// A format or layout of another program: what, found, expected.
    Incompatible(&'static str, u64, u64),
    /// The checksum is wrong.
    Damaged,
}

/// Little-endian marker: reads as another number where bytes are swapped.
const BYTE_ORDER: u32 = 0x0a0b_0c0d;
/// The id of the checksum function: xxh3-64.
const CHECKSUM_ID: u32 = 1;
/// Bytes of the superblock, its check included.
pub(crate) const SUPERBLOCK_SIZE: usize = 256;
/// Incompatible features that this code knows: none so far.
const KNOWN_INCOMPATIBLE: u32 = 0;

impl Superblock {
    /// The first 256 bytes of the file, with their check. The name and version of the program that made the file are
    /// among them, for people who look at it; nothing decodes them.
    pub(crate) fn encode(&self) -> [u8; SUPERBLOCK_SIZE] {
        let mut bytes = [0; SUPERBLOCK_SIZE];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &MAGIC);
        put(8, &VERSION.to_le_bytes());
        put(12, &(HEADER_SIZE as u32).to_le_bytes());
        // 16: compatible, 20: compatible for readers, 24: incompatible features: none in version 1.
        put(28, &BYTE_ORDER.to_le_bytes());
        put(32, &self.file_id);
        put(48, &self.cache_id);
        put(64, &self.seed.to_le_bytes());
        put(72, &self.log_start.to_le_bytes());
        put(80, &self.first_index.0.to_le_bytes());
        put(88, &self.generation.to_le_bytes());
        put(96, &CHECKSUM_ID.to_le_bytes());
        put(100, &self.pointer_width.to_le_bytes());
        put(104, concat!("persist-cache ", env!("CARGO_PKG_VERSION")).as_bytes());
        let check = checksum(&bytes[..SUPERBLOCK_SIZE - 8], u64::from(VERSION));
        bytes[SUPERBLOCK_SIZE - 8..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// The superblock of a header page.
    ///
    /// What is asked first is what gives the better error. Byte order and version come before the checksum: where bytes
    /// are swapped, or another version has another layout, the checksum fails as well, and "damaged" would be false.
    /// The other facts come behind it, since a flipped bit in one of them is damage and no incompatibility.
    pub(crate) fn decode(page: &[u8; HEADER_SIZE as usize]) -> Result<Superblock, HeaderError> {
        // All of the page, and not its first bytes: a page that has anything in it is somebody's.
        if page.iter().all(|byte| *byte == 0) {
            return Err(HeaderError::Blank);
        }
        if page[..8] != MAGIC {
            return Err(HeaderError::Alien(page[..8].try_into().expect("sized")));
        }
        let expect = |what, found: u32, expected: u32| match found == expected {
            true => Ok(()),
            false => Err(HeaderError::Incompatible(what, found.into(), expected.into())),
        };
        expect("byte order", field!(page, 28, u32), BYTE_ORDER)?;
        expect("format version", field!(page, 8, u32), VERSION)?;
        if checksum(&page[..SUPERBLOCK_SIZE - 8], u64::from(VERSION)) != field!(page, 248, u64) {
            return Err(HeaderError::Damaged);
        }
        expect("header size", field!(page, 12, u32), HEADER_SIZE as u32)?;
        expect("incompatible features", field!(page, 24, u32), KNOWN_INCOMPATIBLE)?;
        expect("checksum function", field!(page, 96, u32), CHECKSUM_ID)?;
        Ok(Superblock {
            file_id: page[32..48].try_into().expect("sized"),
            cache_id: page[48..64].try_into().expect("sized"),
            seed: field!(page, 64, u64),
            log_start: field!(page, 72, u64),
            first_index: Table(field!(page, 80, u64)),
            generation: field!(page, 88, u64),
            pointer_width: field!(page, 100, u32),
            is_for_reading: field!(page, 20, u32) != 0,
        })
    }
}

/// The boot, and the file on this machine, that index and words were written in. They are trusted at once only if
/// that is the boot, and the file, that they are read in: then the page cache that wrote them is the one that is
/// read. A copy, or the same file after a reboot, is verified first.
///
/// A mark that says "closed properly" would not do. Nobody closes a cache: processes are killed, and while one is at
/// work another one opens the file, which must not have to wait for a verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Provenance {
    /// Of the running kernel.
    pub(crate) boot_id: [u8; 16],
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// Nanoseconds since 1970. Inode numbers are used again: after `cp c b; rm c; cp b c` the copy may have the number
    /// that the file had (`a_torn_copy_on_the_same_inode_is_not_trusted`). Zero where the file system keeps no time.
    pub(crate) born: u64,
}

/// The place of the provenance in the file.
pub(crate) const PROVENANCE: u64 = 256;
/// Bytes of the provenance, its check included.
pub(crate) const PROVENANCE_SIZE: usize = 64;

impl Provenance {
    pub(crate) fn encode(&self) -> [u8; PROVENANCE_SIZE] {
        let mut bytes = [0; PROVENANCE_SIZE];
        bytes[..16].copy_from_slice(&self.boot_id);
        bytes[16..24].copy_from_slice(&self.device.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.inode.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.born.to_le_bytes());
        let check = checksum(&bytes[..56], PROVENANCE);
        bytes[56..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// `None` if it was never written, is being written, or is damaged: all the same, verify.
    pub(crate) fn decode(bytes: &[u8; PROVENANCE_SIZE]) -> Option<Provenance> {
        (checksum(&bytes[..56], PROVENANCE) == field!(bytes, 56, u64)).then(|| Provenance {
            boot_id: bytes[..16].try_into().expect("sized"),
            device: field!(bytes, 16, u64),
            inode: field!(bytes, 24, u64),
            born: field!(bytes, 32, u64),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> ([u8; HEADER_SIZE as usize], Superblock) {
        let superblock = Superblock {
            file_id: [1; 16],
            cache_id: [2; 16],
            seed: 3,
            log_start: 8192,
            first_index: Table::new(HEADER_SIZE, FIRST_BUCKETS),
            generation: 4,
            pointer_width: 64,
            is_for_reading: false,
        };
        let mut page = [0; HEADER_SIZE as usize];
        page[..SUPERBLOCK_SIZE].copy_from_slice(&superblock.encode());
        (page, superblock)
    }

    #[test]
    fn superblocks_come_back_and_header_errors_are_named() {
        let (page, superblock) = page();
        assert_eq!(Superblock::decode(&page), Ok(superblock));
        assert_eq!(Superblock::decode(&[0; HEADER_SIZE as usize]), Err(HeaderError::Blank));
        let mut newer = page;
        newer[8] = 2;
        assert_eq!(
            Superblock::decode(&newer),
            Err(HeaderError::Incompatible("format version", 2, 1))
        );
        let mut swapped = page;
        swapped[28..32].reverse();
        assert!(matches!(
            Superblock::decode(&swapped),
            Err(HeaderError::Incompatible("byte order", ..))
        ));
        for bit in 0..SUPERBLOCK_SIZE * 8 {
            let mut flipped = page;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Superblock::decode(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_provenance_comes_back() {
        assert_eq!(Provenance::decode(&[0; PROVENANCE_SIZE]), None);
        let provenance = Provenance { boot_id: [9; 16], device: 1, inode: 2, born: 3 };
        assert_eq!(Provenance::decode(&provenance.encode()), Some(provenance));
    }
}
