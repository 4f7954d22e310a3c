//! A disk, as a power cut leaves it. What was done to files and names since they were last brought to
//! the device may be there in any part: of each grain of a file (8 bytes, a sector, a page) any of its
//! contents since then, any of its sizes, and of the changes to names any number of the first.

use super::Numbers;
use crate::engine::os::effect::Effect;
use crate::engine::os::place::sibling;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

/// Bytes that are written whole by any machine.
const WORD: usize = 8;

/// What was done.
#[derive(Debug, Clone)]
pub(super) enum Event {
    Write {
        inode: u64,
        at: u64,
        bytes: Vec<u8>,
    },
    Allocate {
        inode: u64,
        to: u64,
    },
    Resize {
        inode: u64,
        size: u64,
    },
    Punch {
        inode: u64,
        from: u64,
        to: u64,
    },
    Sync {
        inode: u64,
    },
    /// The cache's name is this file's from now on, or nobody's.
    Name {
        inode: Option<u64>,
    },
    SyncNames,
}

impl Event {
    /// What an effect does to the cache at `cache`.
    pub(super) fn of(effect: Effect<'_>, cache: &Path) -> io::Result<Option<Event>> {
        let inode = |file: &File| Ok::<_, io::Error>(file.metadata()?.ino());
        let event = match effect {
            Effect::Write { file, at, bytes } => {
                Event::Write { inode: inode(file)?, at, bytes: bytes.to_vec() }
            }
            Effect::Allocate { file, to, .. } => Event::Allocate { inode: inode(file)?, to },
            Effect::Resize { file, size } => Event::Resize { inode: inode(file)?, size },
            Effect::Punch { file, from, to } => Event::Punch { inode: inode(file)?, from, to },
            Effect::Sync { file } => Event::Sync { inode: inode(file)? },
            Effect::Link { file } => Event::Name { inode: Some(inode(file)?) },
            Effect::Rename { from } => Event::Name { inode: Some(from.metadata()?.ino()) },
            Effect::Remove { path } if path == cache => Event::Name { inode: None },
            Effect::SyncDirectory => Event::SyncNames,
            // Neither the cache's bytes nor its name.
            Effect::MakeDirectory | Effect::Own | Effect::Touch => return Ok(None),
            Effect::Read | Effect::Map { .. } | Effect::Remove { .. } => return Ok(None),
        };
        Ok(Some(event))
    }
}

/// A file: what is on the device, and all that may be instead.
#[derive(Default, Clone)]
struct Inode {
    durable: Vec<u8>,
    current: Vec<u8>,
    /// Contents of words since the last sync, and when each came.
    versions: BTreeMap<usize, Vec<(usize, [u8; WORD])>>,
    sizes: Vec<usize>,
}

impl Inode {
    fn resize(&mut self, size: usize, time: usize) {
        if size < self.current.len() {
            self.put(size, &vec![0; self.current.len() - size], time);
        }
        self.current.resize(size, 0);
        self.sizes.push(size);
    }

    fn put(&mut self, at: usize, bytes: &[u8], time: usize) {
        if bytes.is_empty() {
            return;
        }
        let end = at + bytes.len();
        if self.current.len() < end {
            self.current.resize(end, 0);
            self.sizes.push(end);
        }
        self.current[at..end].copy_from_slice(bytes);
        for word in at / WORD..end.div_ceil(WORD) {
            let mut content = [0; WORD];
            let piece = &self.current[word * WORD..self.current.len().min((word + 1) * WORD)];
            content[..piece.len()].copy_from_slice(piece);
            let former = self.versions.get(&word).and_then(|versions| versions.last());
            let former = former.map_or_else(|| word_of(&self.durable, word), |last| last.1);
            if former != content {
                self.versions.entry(word).or_default().push((time, content));
            }
        }
    }

    fn sync(&mut self) {
        self.durable.clone_from(&self.current);
        self.versions.clear();
        self.sizes.clear();
    }
}

fn word_of(bytes: &[u8], word: usize) -> [u8; WORD] {
    let mut content = [0; WORD];
    let piece = bytes.get(word * WORD..).unwrap_or_default();
    let size = piece.len().min(WORD);
    content[..size].copy_from_slice(&piece[..size]);
    content
}

/// All files, and which of them the cache is.
#[derive(Default, Clone)]
pub(super) struct Disk {
    inodes: BTreeMap<u64, Inode>,
    /// The name on the device, and the changes to it since.
    name: Option<u64>,
    names: Vec<Option<u64>>,
    time: usize,
}

/// How an image differs from what was done last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// Nothing is lost.
    Nothing,
    /// Everything since the last syncs.
    Everything,
    /// Each grain of so many bytes is of a time of its own, as the numbers say.
    Grains(usize),
    /// Each sector is as on the device or as it was last, by the bits of a number.
    Sectors(u64),
}

/// Bytes of a sector, which disks write whole.
const SECTOR: usize = 512;

impl Disk {
    /// One on which nothing is but the cache at `path`, if there is one, and what is prepared beside it.
    pub(super) fn at(path: &Path) -> io::Result<Disk> {
        let mut disk = Disk::default();
        for (place, is_named) in [(path.to_path_buf(), true), (sibling(path), false)] {
            let bytes = match std::fs::read(&place) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                result => result?,
            };
            let number = std::fs::metadata(&place)?.ino();
            let inode = Inode { durable: bytes.clone(), current: bytes, ..Inode::default() };
            disk.inodes.insert(number, inode);
            disk.name = if is_named { Some(number) } else { disk.name };
        }
        Ok(disk)
    }

    /// Has `event` done.
    pub(super) fn apply(&mut self, event: &Event) {
        self.time += 1;
        let time = self.time;
        let inodes = &mut self.inodes;
        match event {
            Event::Write { inode: number, at, bytes } => {
                inodes.entry(*number).or_default().put(*at as usize, bytes, time);
            }
            Event::Allocate { inode: number, to } => {
                let inode = inodes.entry(*number).or_default();
                inode.resize(inode.current.len().max(*to as usize), time);
            }
            Event::Resize { inode: number, size } => {
                inodes.entry(*number).or_default().resize(*size as usize, time)
            }
            Event::Punch { inode: number, from, to } => {
                let inode = inodes.entry(*number).or_default();
                let end = (*to as usize).min(inode.current.len());
                let zeros = vec![0; end.saturating_sub(*from as usize)];
                inode.put(*from as usize, &zeros, time);
            }
            Event::Sync { inode: number } => inodes.entry(*number).or_default().sync(),
            Event::Name { inode } => self.names.push(*inode),
            Event::SyncNames => {
                self.name = self.names.last().copied().unwrap_or(self.name);
                self.names.clear();
            }
        }
    }

    /// Sectors of the cache that are not on the device as they are.
    pub(super) fn dirty_sectors(&self) -> usize {
        let name = self.names.last().copied().unwrap_or(self.name);
        let Some(inode) = name.and_then(|inode| self.inodes.get(&inode)) else { return 0 };
        let mut sectors: Vec<usize> =
            inode.versions.keys().map(|word| word * WORD / SECTOR).collect();
        sectors.dedup();
        sectors.len()
    }

    /// Puts what a power cut leaves at `path`, as a file of its own.
    pub(super) fn cut(&self, path: &Path, loss: Loss, numbers: &mut Numbers) -> io::Result<()> {
        let names = match loss {
            Loss::Nothing | Loss::Sectors(_) => self.names.len(),
            Loss::Everything => 0,
            Loss::Grains(_) => numbers.below(self.names.len() + 1),
        };
        let name = if names == 0 { self.name } else { self.names[names - 1] };
        for path in [path.to_path_buf(), sibling(path)] {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let mut leave = |inode: &Inode, path: &Path| {
            std::fs::write(path, inode.image(loss, self.time, numbers))?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        };
        if let Some(inode) = name.and_then(|inode| self.inodes.get(&inode)) {
            leave(inode, path)?;
        }
        // What was being prepared beside it may have its name, too.
        let prepared = self.inodes.iter().next_back().filter(|(number, _)| Some(**number) != name);
        if let Some((_, inode)) = prepared.filter(|_| self.time.is_multiple_of(3)) {
            leave(inode, &sibling(path))?;
        }
        Ok(())
    }
}

impl Inode {
    fn image(&self, loss: Loss, now: usize, numbers: &mut Numbers) -> Vec<u8> {
        let mut image = self.durable.clone();
        let size = match loss {
            Loss::Nothing | Loss::Sectors(_) => self.current.len(),
            Loss::Everything => self.durable.len(),
            Loss::Grains(_) => match numbers.below(4) {
                0 => *self
                    .sizes
                    .get(numbers.below(self.sizes.len() + 1))
                    .unwrap_or(&self.durable.len()),
                1 => self.durable.len(),
                _ => self.current.len(),
            },
        };
        image.resize(size.max(self.durable.len()), 0);
        let oldest = self.versions.values().map(|versions| versions[0].0).min().unwrap_or(now);
        // Of three images one is mostly old, one mostly new, and one of all times.
        let bias = numbers.below(3);
        let mut grain = (usize::MAX, 0);
        for (word, versions) in &self.versions {
            let time = match loss {
                Loss::Nothing => now,
                Loss::Everything => 0,
                Loss::Sectors(bits) => {
                    if grain.0 != word * WORD / SECTOR {
                        grain = (word * WORD / SECTOR, grain.1 + 1);
                    }
                    if bits >> (grain.1 - 1) & 1 == 1 { now } else { 0 }
                }
                Loss::Grains(size) => {
                    if grain.0 != word * WORD / size {
                        let time = match (bias, numbers.below(8)) {
                            (0, 1..) => 0,
                            (1, 1..) => now,
                            _ => oldest - 1 + numbers.below(now + 2 - oldest),
                        };
                        grain = (word * WORD / size, time);
                    }
                    grain.1
                }
            };
            let Some((_, content)) = versions.iter().rfind(|version| version.0 <= time) else {
                continue;
            };
            let start = (word * WORD).min(image.len());
            let end = ((word + 1) * WORD).min(image.len());
            image[start..end].copy_from_slice(&content[..end - start]);
        }
        image.truncate(size);
        image
    }
}
