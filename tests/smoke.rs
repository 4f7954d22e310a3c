use persist_cache::*;
use std::sync::atomic::{AtomicU64, Ordering::*};
#[test]
fn smoke() {
    let dir = tempfile::tempdir().unwrap();
    let cache = MmapCache::options().root(dir.path()).open("x").unwrap();
    static N: AtomicU64 = AtomicU64::new(0);
    let f = cache.memoize(|n: &u64| {
        N.fetch_add(1, Relaxed);
        *n + 1
    });
    for n in 0..100_000u64 {
        assert_eq!(*f.call(&n), n + 1);
    }
    for n in 0..100_000u64 {
        assert_eq!(*f.call(&n), n + 1);
    }
    assert_eq!(N.load(Relaxed), 100_000);
    println!("{:?}", cache.stats());
    println!("{:?}", cache.verify().unwrap());
    println!("{:?}", cache.compact().unwrap());
    println!("{:?}", cache.stats());
    println!("{:?}", cache.verify().unwrap());
    for n in 0..100_000u64 {
        assert_eq!(*f.call(&n), n + 1);
    }
    assert_eq!(N.load(Relaxed), 100_000);
    cache.sync().unwrap();
    let copy = dir.path().join("copy.pcache");
    std::fs::copy(cache.path(), &copy).unwrap();
    std::fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let c2 = MmapCache::open_at(&copy).unwrap();
    println!("{:?}", c2.stats());
    println!("{:?}", c2.verify().unwrap());
    cache.clear().unwrap();
    assert!(f.peek(&4).is_none());
    println!("{:?}", cache.stats());
    for n in 0..10_000u64 {
        assert_eq!(*f.call(&n), n + 1);
    }
    println!("{:?}", cache.verify().unwrap());
    cache.delete().unwrap();
    assert!(f.peek(&4).is_none());
    let t = cache.table::<str, Vec<String>>("t");
    t.insert("a", &vec!["x".into()]).unwrap();
    assert_eq!(t.get("a").unwrap().unwrap()[0], "x");
    let t = cache.table::<u64, u64>("t");
    t.insert_many((0..100_000u64).map(|n| (n, n))).unwrap();
    t.insert_many([(1, 2)]).unwrap();
    assert_eq!(*t.get(&1).unwrap().unwrap(), 2);
    println!("{:?}", cache.verify().unwrap());
    cache.set_expiry(std::time::Duration::ZERO);
    assert_eq!(cache.flush().unwrap(), 100_001);
    println!("{:?}", cache.stats());
    println!("{:?}", cache.verify().unwrap());
}
