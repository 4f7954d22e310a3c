//! Any bytes decoded as what a file holds: heads, headers, checkpoints; what decodes encodes to the same.
//! (Archives and sequences are reached by `open`, behind checks that are mended.)
#![no_main]

use libfuzzer_sys::fuzz_target;
use persist_cache::fuzzing::decode;

fuzz_target!(|input: (u64, u64, &[u8])| {
    let (offset, seed, bytes) = input;
    decode(bytes, offset, seed);
});
