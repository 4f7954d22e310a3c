//! Options that are none, say nothing, or contradict each other.
use persist_cache::cache;

#[cache(expires = "30d")]
fn unknown(n: u32) -> u32 {
    n
}

#[cache(expiry = "30 fortnights")]
fn no_duration(n: u32) -> u32 {
    n
}

#[cache(expiry = 30)]
fn no_unit(n: u32) -> u32 {
    n
}

#[cache(record_limit = "64 mebibytes")]
fn no_size(n: u32) -> u32 {
    n
}

#[cache(name = "a", name = "b")]
fn twice(n: u32) -> u32 {
    n
}

#[cache(path = "a.pcache", name = "a")]
fn path_and_name(n: u32) -> u32 {
    n
}

#[cache(path = "a.pcache", root = "a")]
fn path_and_root(n: u32) -> u32 {
    n
}

#[cache(key = n, ignore(n))]
fn key_and_ignore(n: u32) -> u32 {
    n
}

#[cache(version = 1, deps(key_and_ignore))]
fn version_and_deps(n: u32) -> u32 {
    n
}

#[cache(code = "program", version = 1)]
fn code_and_version(n: u32) -> u32 {
    n
}

#[cache(code = "program", deps(key_and_ignore))]
fn code_and_deps(n: u32) -> u32 {
    n
}

#[cache(code = "crate")]
fn no_code(n: u32) -> u32 {
    n
}

#[cache(ignore(m))]
fn ignores_nothing(n: u32) -> u32 {
    n
}

#[cache(ignore(self))]
fn ignores_self(n: u32) -> u32 {
    n
}

#[cache(with_self)]
fn has_no_self(n: u32) -> u32 {
    n
}

#[cache("name")]
fn no_option(n: u32) -> u32 {
    n
}

fn main() {
    // The functions are there all the same, so that this is no error as well.
    unknown(1);
    path_and_name(1);
}
