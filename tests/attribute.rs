//! `#[cache]`, row by row: what its documentation says works.
#![allow(missing_docs, dead_code, reason = "a test")]

mod common;

use futures_lite::StreamExt as _;
use futures_lite::future::block_on;
use persist_cache::rkyv::rancor::{Fallible, Source};
use persist_cache::rkyv::{Archive, Deserialize, Serialize};
use persist_cache::{CacheKey, Cached, FileKey, MmapCache, Schema, cache, tracked};
use std::cell::Cell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

/// Where this test program's functions keep their caches: gone with it.
static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory").keep()
});

fn root() -> PathBuf {
    ROOT.clone()
}

thread_local! {
    static RUNS: Cell<u32> = const { Cell::new(0) };
}

/// Notes that a body runs.
fn ran() {
    RUNS.set(RUNS.get() + 1);
}

fn all<T>(_: T) {}

/// How many bodies ran in `work`.
fn runs(work: impl FnOnce()) -> u32 {
    RUNS.set(0);
    work();
    RUNS.take()
}

#[derive(Debug, Clone, PartialEq, Archive, Serialize, Deserialize, Schema)]
struct User {
    id: u64,
    name: String,
}

#[cache(root = root())]
fn digest(text: &str, rounds: u32) -> u64 {
    ran();
    text.bytes().map(u64::from).sum::<u64>() * u64::from(rounds)
}

#[test]
fn a_function_is_called_as_before() {
    let first = runs(|| assert_eq!(digest("ab", 2), 390));
    let again = runs(|| assert_eq!(digest(&String::from("ab"), 2), 390));
    let other = runs(|| assert_eq!(digest("ab", 3), 585));
    assert_eq!((first, again, other), (1, 0, 1));
    let seen: Cached<u64> = digest::archived("ab", 2);
    assert_eq!(seen.to_native(), 390);
    assert_eq!(digest::peek("ab", 2).map(|seen| seen.to_native()), Some(390));
    assert!(digest::peek("ab", 4).is_none());
    assert_eq!(runs(|| assert_eq!(digest::uncached("ab", 2), 390)), 1);
    assert_eq!(runs(|| assert_eq!(digest::refresh("ab", 2), 390)), 1);
    assert!(digest::forget("ab", 2).unwrap());
    assert!(!digest::forget("ab", 2).unwrap());
    assert_eq!(runs(|| assert_eq!(digest("ab", 2), 390)), 1);
    assert_eq!(digest::cache().name(), Some("attribute::digest"));
    assert!(digest::cache().fault().is_none());
}

#[cache(root = root(), expiry = "1h")]
fn kept(n: u32) -> u32 {
    ran();
    n + 1
}

#[test]
fn upkeep_acts_on_the_cache() {
    assert_eq!(kept::cache().expiry(), Some(Duration::from_secs(3600)));
    assert_eq!(runs(|| all((kept(1), kept(1)))), 1);
    assert_eq!(kept::stats().entries, 1);
    kept::set_expiry(Duration::ZERO);
    assert_eq!(runs(|| all(kept(1))), 1);
    assert_eq!(kept::flush().unwrap(), 1);
    kept::set_expiry(None);
    assert_eq!(runs(|| all(kept(1))), 1);
    kept::clear().unwrap();
    assert_eq!(runs(|| all((kept(1), kept(1)))), 1);
    assert_eq!(kept::compact().unwrap().entries_kept, 1);
    let path = kept::cache().path().to_path_buf();
    kept::delete().unwrap();
    assert!(!path.exists());
    assert_eq!(runs(|| all((kept(1), kept(1)))), 1);
    assert!(path.exists());
}

#[derive(Archive, Serialize)]
struct OneWay(u64);

impl<D: Fallible<Error: Source> + ?Sized> Deserialize<OneWay, D> for ArchivedOneWay {
    fn deserialize(&self, _: &mut D) -> Result<OneWay, D::Error> {
        Err(D::Error::new(std::fmt::Error))
    }
}

#[cache(root = root())]
fn one_way(n: u64) -> OneWay {
    ran();
    OneWay(n)
}

#[cache(root = root())]
async fn one_way_async(n: u64) -> OneWay {
    ran();
    OneWay(n)
}

#[test]
fn what_cannot_be_brought_back_is_computed_and_counted_once() {
    let calls = 1..=3;
    assert_eq!(runs(|| calls.clone().for_each(|_| assert_eq!(one_way(7).0, 7))), 3);
    let run_async = || calls.clone().for_each(|_| assert_eq!(block_on(one_way_async(7)).0, 7));
    assert_eq!(runs(run_async), 3);
    for stats in [one_way::stats(), one_way_async::stats()] {
        assert_eq!((stats.misses, stats.hits, stats.store_errors, stats.entries), (1, 2, 2, 1));
    }
}

#[cache(name = "shared", root = root())]
fn double(n: u64) -> u64 {
    n * 2
}

#[cache(name = "shared", root = root())]
fn triple(n: u64) -> u64 {
    n * 3
}

#[test]
fn two_functions_share_a_cache_and_never_mix() {
    assert_eq!((double(7), triple(7), double(7), triple(7)), (14, 21, 14, 21));
    assert_eq!(double::cache().path(), triple::cache().path());
    assert_eq!(double::stats().entries, 2);
    double::set_expiry(Duration::ZERO);
    assert_eq!(triple::cache().expiry(), None, "an expiry is the function's own");
    triple::clear().unwrap();
    assert!(double::peek(7).is_none(), "clearing is for all of them");
}

type Fetched = Result<User, String>;

#[cache(root = root())]
async fn fetch(url: String) -> Result<User, String> {
    ran();
    futures_lite::future::yield_now().await;
    let id = url.parse::<u64>().map_err(|error| error.to_string())?;
    Ok(User { id, name: url })
}

#[cache(root = root())]
async fn aliased(url: &str) -> Fetched {
    fetch::uncached(url.to_owned()).await
}

#[test]
fn only_success_is_stored_by_whatever_name() {
    block_on(async {
        let user = User { id: 7, name: "7".into() };
        assert_eq!(fetch("7".into()).await, Ok(user.clone()));
        assert_eq!(fetch("7".into()).await, Ok(user.clone()));
        assert!(fetch("x".into()).await.is_err());
        assert!(fetch("x".into()).await.is_err());
        assert_eq!(RUNS.take(), 3);
        assert_eq!(fetch::archived("7".into()).await.unwrap().name, "7");
        assert_eq!(fetch::refresh("7".into()).await, Ok(user.clone()));
        assert_eq!(RUNS.take(), 1);
        assert_eq!(fetch::peek("7".into()).unwrap().id, 7);
        assert_eq!(aliased("7").await, Ok(user.clone()));
        assert_eq!(aliased("7").await, Ok(user));
        assert!(aliased("x").await.is_err());
        assert!(aliased("x").await.is_err());
        assert_eq!(RUNS.take(), 3);
    });
}

struct Client {
    base: u64,
}

impl CacheKey for Client {
    const SCHEMA: persist_cache::KeySchema = persist_cache::KeySchema::new("Client");
    fn feed(&self, key: &mut persist_cache::KeyWriter<'_>) {
        self.base.feed(key);
    }
}

impl Client {
    #[cache(root = root())]
    fn lookup(&self, id: u64) -> User {
        ran();
        User { id: self.base + id, name: id.to_string() }
    }

    #[cache(root = root(), with_self, companion = own)]
    fn own(&self, id: u64) -> User {
        ran();
        User { id: self.base + id, name: id.to_string() }
    }

    #[cache(root = root())]
    async fn load(&self, id: u64) -> Result<User, std::num::ParseIntError> {
        ran();
        let base = self.base;
        let id = format!("{id}").parse::<u64>()?;
        Ok(User { id: base + id, name: id.to_string() })
    }

    #[cache(root = root())]
    fn ids(&self, (from, mut to): (u64, u64)) -> impl Iterator<Item = u64> {
        to += self.base;
        from..to
    }

    #[cache(root = root(), method)]
    fn associated(n: u64) -> u64 {
        n + 1
    }

    #[cache(root = root())]
    fn of_self(n: u64) -> Result<u64, String> {
        ran();
        if n == 0 {
            return Err("zero".into());
        }
        Ok(n + size_of::<Self>() as u64)
    }
}

#[test]
fn methods() {
    let (one, two) = (Client { base: 100 }, Client { base: 200 });
    assert_eq!(one.lookup(1).id, 101);
    assert_eq!(two.lookup(1).id, 101, "`self` is no part of the key");
    assert_eq!((one.own(1).id, two.own(1).id), (101, 201), "unless it is");
    assert_eq!(RUNS.take(), 3);
    assert_eq!((one.own(1).id, two.own(1).id), (101, 201));
    assert_eq!(RUNS.take(), 0);
    assert_eq!(one.own_archived(1).id, 101);
    assert_eq!(one.own_uncached(1).id, 101);
    assert_eq!(one.own_peek(1).unwrap().id, 101);
    assert!(one.own_forget(1).unwrap() && one.own_peek(1).is_none() && two.own_peek(1).is_some());
    assert_eq!(one.own_refresh(1).id, 101);
    Client::own_clear().unwrap();
    assert_eq!(Client::own_stats().entries, 0);
    assert_eq!(Client::own_cache().name(), Some("attribute::Client::own"));
    RUNS.take();
    block_on(async {
        assert_eq!(one.load(1).await.unwrap().id, 101);
        assert_eq!(one.load(1).await.unwrap().id, 101);
    });
    assert_eq!(RUNS.take(), 1);
    assert_eq!(one.ids((1, 3)).collect::<Vec<_>>(), (1..103).collect::<Vec<_>>());
    assert_eq!(one.ids((1, 3)).len_by_hint(), 102);
    assert_eq!(Client::associated(1), 2);
    assert!(Client::of_self(0).is_err() && Client::of_self(0).is_err());
    assert_eq!((Client::of_self(1), Client::of_self(1)), (Ok(9), Ok(9)));
    assert_eq!(RUNS.take(), 3);
}

trait LenByHint: Iterator + Sized {
    fn len_by_hint(self) -> usize {
        assert_eq!(self.size_hint().1, Some(self.size_hint().0));
        self.size_hint().0
    }
}
impl<I: Iterator> LenByHint for I {}

trait Shape {
    fn sides(&self, times: u32) -> u32;
    #[cache(root = root())]
    fn corners(&self, n: u32) -> u32
    where
        Self: Sized,
    {
        self.sides(n) + 1
    }
}
struct Square;
struct Triangle<T>(T);

impl Shape for Square {
    #[cache(root = root())]
    fn sides(&self, times: u32) -> u32 {
        4 * times
    }
}

impl<T: Clone> Shape for Triangle<T> {
    #[cache(root = root())]
    fn sides(&self, times: u32) -> u32 {
        let _ = self.0.clone();
        3 * times + size_of::<T>() as u32
    }
}

#[test]
fn trait_methods_of_each_type_are_their_own() {
    for _ in 0..2 {
        assert_eq!((Square.sides(1), Square.corners(1)), (4, 5));
        assert_eq!((Triangle(0_u8).sides(1), Triangle(0_u64).sides(1)), (4, 11));
        assert_eq!((Triangle(0_u8).corners(1), Triangle(0_u64).corners(1)), (5, 12));
    }
}

#[cache(root = root())]
fn primes(up_to: u64) -> impl Iterator<Item = u64> {
    ran();
    (2..up_to).filter(|n| (2..*n).all(|d| n % d != 0))
}

#[cache(root = root())]
fn events(day: u32) -> impl futures_core::Stream<Item = User> + Send {
    ran();
    futures_lite::stream::iter(0..day).map(|n| User { id: n.into(), name: n.to_string() })
}

#[cache(root = root())]
fn lines(text: String) -> impl Iterator<Item = Result<u64, String>> {
    ran();
    let lines: Vec<String> = text.lines().map(String::from).collect();
    lines.into_iter().map(|line| line.parse::<u64>().map_err(|error| error.to_string()))
}

#[test]
fn iterators_and_streams() {
    assert_eq!(primes(20).take(2).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(primes(20).collect::<Vec<_>>(), [2, 3, 5, 7, 11, 13, 17, 19]);
    assert_eq!(RUNS.take(), 2);
    assert_eq!(primes(20).collect::<Vec<_>>(), [2, 3, 5, 7, 11, 13, 17, 19]);
    assert_eq!(RUNS.take(), 0);
    assert_eq!(primes::refresh(20).count(), 8);
    assert!(primes::forget(20).unwrap());
    assert_eq!(primes::uncached(20).count(), 8);
    RUNS.take();
    block_on(async {
        assert_eq!(events(3).collect::<Vec<_>>().await.len(), 3);
        assert_eq!(events(3).map(|user| user.id).collect::<Vec<_>>().await, [0, 1, 2]);
    });
    assert_eq!(RUNS.take(), 1);
    for text in ["1\n2", "1\nx\n2"] {
        let first: Vec<_> = lines(text.into()).collect();
        assert_eq!(lines(text.into()).collect::<Vec<_>>(), first);
    }
    assert_eq!(RUNS.take(), 3, "what failed was not stored");
}

#[cache(root = root(), ignore(_verbose))]
fn quiet(n: u64, _verbose: bool) -> u64 {
    ran();
    n
}

#[cache(root = root(), key = user.id)]
fn by_id(user: &User, times: u32) -> u64 {
    ran();
    user.id * u64::from(times)
}

#[test]
fn keys_are_chosen() {
    assert_eq!(runs(|| all((quiet(1, true), quiet(1, false)))), 1);
    let user = |name: &str| User { id: 3, name: name.into() };
    assert_eq!(runs(|| all((by_id(&user("a"), 2), by_id(&user("b"), 3)))), 1);
}

#[cache(root = root())]
fn generic<T: CacheKey + ToString, const N: usize>(value: T) -> Vec<String> {
    ran();
    vec![format!("{} {}", std::any::type_name::<T>(), value.to_string()); N]
}

#[cache(root = root())]
fn hidden(value: impl AsRef<str> + CacheKey) -> usize {
    ran();
    value.as_ref().len() + std::any::type_name_of_val(&value).len()
}

#[cache(root = root())]
fn borrowed<'a, 'b: 'a, T>(left: &'a [T], right: &'b str) -> usize
where
    T: CacheKey + 'a,
{
    left.len() + right.len()
}

#[test]
fn generics() {
    for _ in 0..2 {
        assert_eq!(generic::<u32, 2>(1), ["u32 1", "u32 1"]);
        assert_eq!(generic::<u32, 1>(1), ["u32 1"]);
        assert_eq!(generic::<u64, 1>(1), ["u64 1"]);
        assert_eq!(generic::<&str, 1>("a"), ["&str a"]);
        assert_eq!(generic::<String, 1>("a".into()), ["alloc::string::String a"]);
        assert_eq!(hidden("ab") + 17, hidden(String::from("ab")));
        assert_eq!(borrowed(&[1, 2], "abc"), 5);
    }
    assert_eq!(RUNS.take(), 7);
    assert!(generic::forget::<u32, 2>(1).unwrap());
    assert!(generic::peek::<u32, 2, _>(1).is_none() && generic::peek::<u32, 1, _>(1).is_some());
}

/// Documentation, lints and attributes stay where they belong.
#[cache(root = root())]
#[must_use]
#[inline]
#[cfg(not(any()))]
#[expect(unused_variables, reason = "the body does not look at it")]
pub fn documented(n: u64, unused: u8) -> u64 {
    n
}

#[cache(root = root())]
#[cfg(any())]
pub fn compiled_out(n: Unknown) -> u64 {
    n
}

#[cache(root = root())]
fn patterns((a, b): (u32, u32), [c, d]: [u8; 2], mut e: u64, _: u8) -> u64 {
    e += 1;
    u64::from(a + b) + u64::from(c + d) + e
}

#[cache(root = root())]
fn r#type(r#fn: u64) -> u64 {
    r#fn + 1
}

#[cache(root = root())]
fn internals(site: u64, call: u64, form: u64, describe: u64, key: u64, cached: u64) -> u64 {
    site + call + form + describe + key + cached
}

#[cache(root = root())]
#[expect(clippy::too_many_arguments, reason = "that is what is tested")]
fn many(
    a: u8,
    b: u8,
    c: u8,
    d: u8,
    e: u8,
    f: u8,
    g: u8,
    h: u8,
    i: u8,
    j: u8,
    k: u8,
    l: u8,
    m: u8,
) -> u8 {
    a + b + c + d + e + f + g + h + i + j + k + l + m
}

#[cache(root = root())]
fn nothing() {
    ran();
}

#[cache(root = root(), companion = process_cache)]
fn process(n: u64) -> Option<u64> {
    let half = n.checked_sub(10)?;
    if half > 5 {
        return None;
    }
    Some(half)
}

#[cache(root = root(), companion = none)]
fn alone(n: u64) -> u64 {
    ran();
    n
}

#[test]
fn every_shape_of_function() {
    assert_eq!(documented(1, 2), 1);
    assert_eq!(patterns((1, 2), [3, 4], 5, 6), 16);
    assert_eq!(patterns((1, 2), [3, 4], 5, 6), 16);
    assert_eq!((r#type(1), r#type::uncached(1)), (2, 2));
    assert_eq!(r#type::cache().name(), Some("attribute::type"));
    assert_eq!(internals(1, 2, 3, 4, 5, 6), 21);
    assert_eq!(many(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1), 13);
    assert_eq!(many(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2), 14);
    assert_eq!(runs(|| (nothing(), nothing()).1), 1);
    assert_eq!((process(12), process(3), process(100)), (Some(2), None, None));
    assert_eq!((process(12), process(3), process(100)), (Some(2), None, None));
    assert_eq!(process_cache::stats().entries, 3);
    assert_eq!(runs(|| all((alone(1), alone(1)))), 1);
}

#[cache(root = root())]
fn fib(n: u64) -> u64 {
    ran();
    if n < 2 { n } else { fib(n - 1) + fib(n - 2) }
}

#[cache(root = root())]
fn is_even(n: u64) -> bool {
    n == 0 || is_odd(n - 1)
}

#[cache(root = root())]
fn is_odd(n: u64) -> bool {
    n != 0 && is_even(n - 1)
}

#[test]
fn recursion() {
    assert_eq!(fib(80), 23_416_728_348_467_685);
    assert_eq!(RUNS.take(), 81);
    assert!(is_even(100) && !is_odd(100));
}

mod first {
    #[persist_cache::cache(root = super::root())]
    pub(super) fn named(n: u64) -> u64 {
        n + 1
    }
}

mod second {
    #[persist_cache::cache(root = super::root())]
    pub(super) fn named(n: u64) -> u64 {
        n + 2
    }
}

#[test]
fn functions_of_one_name() {
    assert_eq!((first::named(1), second::named(1)), (2, 3));
    fn in_a_block(n: u64) -> u64 {
        const STEP: u64 = 10;
        #[cache(root = root())]
        fn named(n: u64) -> u64 {
            n + STEP
        }
        named(n)
    }
    fn in_another(n: u64) -> u64 {
        const STEP: u64 = 20;
        #[cache(root = root())]
        fn named(n: u64) -> u64 {
            n + STEP
        }
        named(n)
    }
    assert_eq!((in_a_block(1), in_another(1), in_a_block(1)), (11, 21, 11));
}

mod facade {
    pub(crate) mod inner {
        pub(crate) use persist_cache::*;
    }
}

#[cache(crate = facade::inner, root = root())]
fn through_a_facade(n: u64) -> u64 {
    n
}

#[test]
fn the_library_may_be_elsewhere() {
    assert_eq!((through_a_facade(1), through_a_facade(1)), (1, 1));
}

/// The same function with another body, in one file.
macro_rules! version {
    ($module:ident, $($code:tt)*) => {
        mod $module {
            use super::{ran, root};
            $($code)*
        }
    };
}

#[test]
fn an_explicit_file_and_lazy_expressions() {
    fn file() -> PathBuf {
        root().join("explicit.pcache")
    }
    #[cache(path = file(), expiry = Duration::from_secs(60), claim_timeout = "1s")]
    fn in_a_file(n: u64) -> u64 {
        n
    }
    assert!(!file().exists());
    assert_eq!(in_a_file(1), 1);
    assert!(file().exists());
    assert_eq!(in_a_file::cache().expiry(), Some(Duration::from_secs(60)));
}

#[tracked]
const FACTOR: u64 = 3;

#[tracked]
fn helper(n: u64) -> u64 {
    n * FACTOR
}

#[cache(root = root(), deps(helper, FACTOR, digest))]
fn dependent(n: u64) -> u64 {
    helper(n)
}

#[cache(root = root(), version = 3)]
fn versioned(n: u64) -> u64 {
    n
}

#[test]
fn code_is_part_of_the_scope() {
    version!(
        one,
        #[persist_cache::cache(root = root())]
        pub fn f(n: u64) -> u64 {
            ran();
            n
        }
    );
    version!(
        two,
        #[persist_cache::cache(root = root())]
        pub fn f(n: u64) -> u64 {
            ran();
            u64::min(n, n)
        }
    );
    assert_ne!(one::f::CODE, two::f::CODE);
    assert_ne!(helper::CODE, FACTOR::CODE);
    assert_ne!(dependent::CODE, digest::CODE);
    assert_eq!((dependent(2), versioned(2)), (6, 2));
}

#[derive(CacheKey)]
enum Query<'a, T> {
    All,
    Text(&'a str, #[cache_key(skip)] u8),
    Both { left: Box<Query<'a, T>>, right: Vec<Self> },
    Other(T),
}

#[derive(CacheKey)]
struct Point {
    x: u32,
    y: u32,
}

#[cache(root = root())]
fn search(query: &Query<'_, Point>) -> u32 {
    ran();
    match query {
        Query::All => 1,
        Query::Text(text, _) => text.len() as u32,
        Query::Both { left, right } => search(left) + right.iter().map(search).sum::<u32>(),
        Query::Other(point) => point.x - point.y,
    }
}

#[test]
fn derived_keys() {
    let query = |x| Query::Both {
        left: Box::new(Query::Text("four", x)),
        right: vec![Query::All, Query::Other(Point { x: 9, y: 4 })],
    };
    assert_eq!(runs(|| all((search(&query(1)), search(&query(2))))), 4);
    mod swapped {
        #[derive(persist_cache::CacheKey)]
        pub(super) struct Point {
            pub(super) y: u32,
            pub(super) x: u32,
        }
    }
    assert_ne!(Point::SCHEMA, swapped::Point::SCHEMA);
    let _ = swapped::Point { x: 1, y: 2 };
}

#[cache(root = root())]
fn parse(file: FileKey) -> String {
    ran();
    std::fs::read_to_string(&file).unwrap_or_default()
}

#[test]
fn a_file_that_changed_is_another_key() {
    let path = root().join("input.txt");
    let read = || parse(FileKey::new(&path).unwrap());
    std::fs::write(&path, "one").unwrap();
    assert_eq!((read(), read()), ("one".into(), "one".into()));
    std::fs::write(&path, "two").unwrap();
    assert_eq!((read(), read()), ("two".into(), "two".into()));
    assert_eq!(RUNS.take(), 2);
    assert!(FileKey::new(root().join("absent")).is_err());
}

#[test]
fn a_cache_that_cannot_be_opened_is_done_without() {
    #[cache(path = "/proc/no/such/place")]
    fn nowhere(n: u64) -> u64 {
        ran();
        n
    }
    assert_eq!(runs(|| all((nowhere(1), nowhere(1)))), 2);
    assert!(nowhere::cache().fault().is_some());
    assert_eq!(nowhere::stats().store_errors, 1, "told once");
    std::fs::write(root().join("alien"), [7; 5000]).unwrap();
    #[cache(path = root().join("alien"))]
    fn alien(n: u64) -> u64 {
        n
    }
    assert_eq!(alien(1), 1);
    assert_eq!(std::fs::read(root().join("alien")).unwrap(), [7; 5000], "left as it is");
}

#[test]
fn a_cache_that_others_could_write_is_read_by_copy() {
    use std::os::unix::fs::PermissionsExt as _;
    let open = root().join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
    #[cache(path = root().join("open/to-all.pcache"))]
    fn copied(n: u64) -> HashMap<u64, String> {
        ran();
        HashMap::from([(n, n.to_string())])
    }
    assert_eq!(runs(|| assert_eq!(copied(1), copied(1))), 1);
    assert!(matches!(copied::cache().fault(), Some(persist_cache::Error::Exposed { .. })));
}

#[test]
fn a_disabled_cache_is_no_fault() {
    assert!(MmapCache::disabled().fault().is_none());
}

trait Constant {
    type Out: From<u64> + std::fmt::Debug + PartialEq;
    const VALUE: u64;
}

impl Constant for u8 {
    type Out = u64;
    const VALUE: u64 = 1;
}

impl Constant for u16 {
    type Out = u128;
    const VALUE: u64 = 100;
}

trait Scale<T> {
    fn scale(&self, n: u64) -> u64;
}

impl<T: Constant> Scale<T> for Square {
    #[cache(root = root())]
    fn scale(&self, n: u64) -> u64 {
        n * T::VALUE
    }
}

trait ByDefault<T: Constant> {
    #[cache(root = root())]
    fn by_default(&self, n: u64) -> u64 {
        n * T::VALUE
    }
}

impl ByDefault<u8> for Square {}
impl ByDefault<u16> for Square {}

struct Fixed<const N: u64>;

impl<const N: u64> Fixed<N> {
    #[cache(root = root(), companion = times)]
    fn times(&self, n: u64) -> u64 {
        n * N
    }
}

/// The parameters around a method are part of what it is, though no name of its own has them.
#[test]
fn parameters_of_the_implementation() {
    for _ in 0..2 {
        assert_eq!((Scale::<u8>::scale(&Square, 3), Scale::<u16>::scale(&Square, 3)), (3, 300));
        let by_default =
            (ByDefault::<u8>::by_default(&Square, 3), ByDefault::<u16>::by_default(&Square, 3));
        assert_eq!(by_default, (3, 300));
        assert_eq!((Fixed::<2>.times(3), Fixed::<5>.times(3)), (6, 15));
    }
    assert_eq!(Fixed::<5>.times_peek(3).map(|seen| seen.to_native()), Some(15));
    assert!(Fixed::<5>.times_forget(3).unwrap() && Fixed::<2>.times_peek(3).is_some());
}

#[cache(root = root())]
fn result_by_type<T: Constant>(n: u64) -> Vec<String>
where
    T::Out: ToString,
{
    vec![T::VALUE.to_string(); n as usize]
}

/// Functions that have path and tokens in common, and mean something else by them.
#[test]
fn alike_in_everything_but_what_is_around() {
    fn blocks() -> (u64, u64) {
        let one = {
            const STEP: u64 = 1;
            #[cache(root = root())]
            fn f(n: u64) -> u64 {
                n + STEP
            }
            f(1)
        };
        let two = {
            const STEP: u64 = 2;
            #[cache(root = root())]
            fn f(n: u64) -> u64 {
                n + STEP
            }
            f(1)
        };
        (one, two)
    }
    assert_eq!((blocks(), blocks()), ((2, 3), (2, 3)));
    assert_eq!(result_by_type::<u8>(1), ["1"]);
    assert_eq!(result_by_type::<u16>(1), ["100"]);
}

#[derive(CacheKey)]
struct Modulo<const N: u64>(u64);

#[derive(CacheKey)]
struct Id<T> {
    id: u64,
    of: std::marker::PhantomData<T>,
}

#[test]
fn keys_that_differ_in_a_parameter_alone() {
    assert_ne!(Modulo::<5>::SCHEMA, Modulo::<7>::SCHEMA);
    assert_ne!(Id::<u8>::SCHEMA, Id::<u16>::SCHEMA);
    let _ = Id { id: 1, of: std::marker::PhantomData::<u8> };
}

#[test]
fn a_version_counts_for_those_who_depend_on_it() {
    version!(
        one,
        #[persist_cache::cache(root = root(), version = 1)]
        pub fn f(n: u64) -> u64 {
            ran();
            n
        }
    );
    version!(
        two,
        #[persist_cache::cache(root = root(), version = 2)]
        pub fn f(n: u64) -> u64 {
            ran();
            n
        }
    );
    version!(
        more,
        #[persist_cache::cache(root = root(), version = 2)]
        pub fn f(n: u64) -> u64 {
            ran();
            n + 1
        }
    );
    assert_ne!(one::f::CODE, two::f::CODE);
    assert_eq!(two::f::CODE, more::f::CODE, "it stands in for the code");
    let _ = (one::f(1), two::f(1), more::f(1));
}

#[cache(root = root())]
fn with_an_item_inside(n: u64) -> u64 {
    struct Inner(u64);
    impl Inner {
        fn new(n: u64) -> Self {
            Self(n)
        }
    }
    Inner::new(n).0
}

impl Client {
    #[cache(root = root(), with_self)]
    fn consumed(mut self, n: u64) -> u64 {
        self.base += n;
        self.base
    }
}

macro_rules! returning {
    ($name:ident, $n:ident: $argument:ty, $result:ty, $value:expr) => {
        #[cache(root = root())]
        fn $name($n: $argument) -> $result {
            let $n = u64::from($n);
            $value
        }
    };
}

returning!(of_a_macro, n: u32, Result<u64, String>, n.checked_sub(1).ok_or("zero".into()));
returning!(items_of_a_macro, n: u32, impl Iterator<Item = u64>, 0..n);

/// A trait in scope that has methods for everything.
trait Blanket {
    fn form(&self) -> u8 {
        0
    }
    fn describes(&self) -> u8 {
        0
    }
    fn of(&self) {}
    fn run(&self) {}
}
impl<T> Blanket for T {}

#[test]
fn more_shapes_of_functions() {
    assert_eq!((with_an_item_inside(3), with_an_item_inside::uncached(3)), (3, 3));
    assert_eq!(Client { base: 1 }.consumed(2), 3);
    assert_eq!(Client { base: 1 }.consumed(2), 3);
    assert_eq!((of_a_macro(1), of_a_macro(0)), (Ok(0), Err("zero".into())));
    assert_eq!(of_a_macro::archived(1).map(|n| n.to_native()), Ok(0));
    assert_eq!(items_of_a_macro(3).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(1.form() + 1.describes(), 0);
}
