//! A result behind an alias is stored right; to read it in place it must be spelled out.
use persist_cache::cache;

type Number = Result<u64, String>;

#[cache]
fn number(text: &str) -> Number {
    text.parse().map_err(|_| text.to_owned())
}

fn main() {
    let _ = number("1");
    let _ = number::archived("1");
}
