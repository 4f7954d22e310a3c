//! A list that only grows, and is read without waiting: by a forked child as well, whatever other threads
//! of its parent were at. What two threads add at once is made by both, and one is in time.

use once_cell::race::OnceBox;

/// Values in the order in which they were added.
pub(crate) struct List<T> {
    first: OnceBox<Link<T>>,
}

struct Link<T> {
    value: T,
    rest: List<T>,
}

impl<T> List<T> {
    pub(crate) const fn new() -> List<T> {
        List { first: OnceBox::new() }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        let links = std::iter::successors(self.first.get(), |link| link.rest.first.get());
        links.map(|link| &link.value)
    }

    /// The first value that is the one; if there is none, that of `make`, which is added. `make` may be
    /// called more than once, or for nothing.
    #[inline]
    pub(crate) fn find_or_add(&self, is_it: impl Fn(&T) -> bool, make: impl Fn() -> T) -> &T {
        let mut place = self;
        loop {
            let add = || Box::new(Link { value: make(), rest: List::new() });
            let link = place.first.get_or_init(add);
            if is_it(&link.value) {
                return &link.value;
            }
            place = &link.rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_added_once() {
        let list = List::new();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let list = &list;
                scope.spawn(move || {
                    for n in 0..200 {
                        let value = (n * (2 * thread + 1)) % 200;
                        assert_eq!(*list.find_or_add(|own| *own == value, || value), value);
                    }
                });
            }
        });
        let mut values: Vec<u32> = list.iter().copied().collect();
        values.sort_unstable();
        assert_eq!(values, Vec::from_iter(0..200));
    }
}
