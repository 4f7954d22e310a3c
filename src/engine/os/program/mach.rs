//! The header of an object of macOS.

use super::number;

pub(super) const HEADER: usize = 32;
const MAGIC: u64 = 0xfeed_facf;
const EXECUTABLE: u64 = 2;
const BUNDLE: u64 = 8;
const UUID: u64 = 0x1b;
const LOADS: [u64; 3] = [0xc, 0x8000_0018, 0x8000_001f];

/// What tells an executable or bundle from all others, from its header and load commands. `None` if
/// more would have to be known: it is a library, or is linked with one that is not the system's.
pub(super) fn uuid(object: &[u8]) -> Option<[u8; 16]> {
    let word = |at| number(object, at, 4);
    if word(0)? != MAGIC || ![EXECUTABLE, BUNDLE].contains(&word(12)?) {
        return None;
    }
    let (mut at, mut uuid) = (HEADER, None);
    for _ in 0..word(16)? {
        let len = (word(at + 4)? as usize).max(8);
        let command = object.get(at..at + len)?;
        match number(command, 0, 4)? {
            UUID => uuid = command.get(8..24)?.try_into().ok(),
            kind if LOADS.contains(&kind) => {
                let name = command.get(number(command, 8, 4)? as usize..)?;
                let systems = [&b"/usr/"[..], b"/System/", b"/opt/"];
                if !systems.iter().any(|start| name.starts_with(start)) {
                    return None;
                }
            }
            _ => {}
        }
        at += len;
    }
    uuid
}
