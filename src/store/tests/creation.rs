//! Creation, and what is prepared to take a file's place.

use super::{assert_sound, get, location, put};
use crate::store::Store;
use crate::store::compact::copy_to;
use crate::store::expiry::View;
use crate::store::open::Location;
use crate::sys::place::{Care, Replacement};

/// Where others may write, they may cut the file that a compaction prepares, too.
#[test]
fn a_file_that_is_not_mapped_has_a_successor_that_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.pcache");
    for (care, is_mapped) in [(Care::Checked, true), (Care::Copied, false)] {
        let store = Store::open(Location { care, ..location(&path) }).unwrap();
        put(&store, 1, b"kept");
        let region = store.region().unwrap();
        let new = Replacement::begin(&path).unwrap().unwrap();
        let (next, _, _) = copy_to(&region, &new, View::AS_WRITTEN).unwrap();
        assert_eq!((region.map().is_some(), next.map().is_some()), (is_mapped, is_mapped));
        drop((next, new));
        store.compact(View::AS_WRITTEN).unwrap();
        assert_eq!(get(&store, 1).unwrap(), b"kept");
        assert_sound(&store);
    }
}
