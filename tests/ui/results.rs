//! Results that cannot be stored.
use persist_cache::cache;

struct NotArchived;

#[cache]
fn borrowed(text: &str) -> &str {
    text
}

#[cache]
fn not_archived(n: u32) -> NotArchived {
    let _ = n;
    NotArchived
}

#[cache]
fn not_archived_inside(n: u32) -> Result<Vec<NotArchived>, String> {
    Err(n.to_string())
}

#[cache]
fn borrowed_inside(text: &'static str) -> Vec<&'static str> {
    vec![text]
}

#[cache]
fn never(n: u32) -> ! {
    panic!("{n}")
}

#[cache]
fn hidden(n: u32) -> impl ToString {
    n
}

#[cache]
async fn not_archived_async(n: u32) -> NotArchived {
    let _ = n;
    NotArchived
}

fn main() {}
