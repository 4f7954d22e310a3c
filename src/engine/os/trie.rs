//! A set that only grows and is read without waiting, by a forked child as well, whatever other threads of
//! its parent were at. What two threads add at once is made by both, and one is in time.
//!
//! A node has a value and four children; two bits of a value's hash say, at each level, below which child it
//! is. So the first value that was added is found at once, and one of n after some log4(n) steps.

use once_cell::race::OnceBox;
use std::hash::{Hash, Hasher};

/// Values, found by their hashes.
pub(crate) struct Trie<T> {
    root: OnceBox<Node<T>>,
}

struct Node<T> {
    value: T,
    children: [OnceBox<Node<T>>; 4],
}

impl<T> Trie<T> {
    pub(crate) const fn new() -> Trie<T> {
        Trie { root: OnceBox::new() }
    }

    /// The value that is the one, if it is there. `hash` is asked for once there is more than one value.
    pub(crate) fn find(&self, hash: impl Fn() -> u64, is_it: impl Fn(&T) -> bool) -> Option<&T> {
        let mut node = self.root.get()?;
        let mut path = None;
        while !is_it(&node.value) {
            node = node.child(&mut path, &hash).get()?;
        }
        Some(&node.value)
    }

    /// The value that is the one; if there is none, that of `make`, which is added. `make` may be called for
    /// nothing.
    #[inline]
    pub(crate) fn find_or_add(
        &self,
        hash: impl Fn() -> u64,
        is_it: impl Fn(&T) -> bool,
        make: impl Fn() -> T,
    ) -> &T {
        let mut place = &self.root;
        let mut path = None;
        loop {
            let node = place.get_or_init(|| {
                Box::new(Node { value: make(), children: [const { OnceBox::new() }; 4] })
            });
            if is_it(&node.value) {
                return &node.value;
            }
            place = node.child(&mut path, &hash);
        }
    }
}

impl<T> Node<T> {
    /// The child that the path leads to next. A path goes round and round, so that values of one hash are
    /// found as well, if not as fast.
    fn child(&self, path: &mut Option<u64>, hash: impl Fn() -> u64) -> &OnceBox<Node<T>> {
        let bits = path.unwrap_or_else(hash);
        *path = Some(bits.rotate_right(2));
        &self.children[(bits % 4) as usize]
    }
}

/// A hash for a trie: quick, and no more than that.
pub(crate) fn hash_of(value: impl Hash) -> u64 {
    let mut fold = Fold(0);
    value.hash(&mut fold);
    fold.finish()
}

struct Fold(u64);

impl Hasher for Fold {
    fn write(&mut self, bytes: &[u8]) {
        for bytes in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            self.write_u64(u64::from_le_bytes(word));
        }
    }
    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.0.rotate_left(8) ^ word) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn each_value_is_added_once() {
        let trie = Trie::new();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let trie = &trie;
                scope.spawn(move || {
                    for n in 0..200_u64 {
                        let value = (n * (2 * thread + 1)) % 200;
                        let found =
                            trie.find_or_add(|| hash_of(value), |own| *own == value, || value);
                        assert_eq!(*found, value);
                    }
                });
            }
        });
        for value in 0..200 {
            assert_eq!(trie.find(|| hash_of(value), |own| *own == value), Some(&value));
        }
        assert_eq!(trie.find(|| hash_of(200_u64), |own| *own == 200), None);
    }

    /// The steps from the root to the last of so many values, at most.
    fn most_steps(count: u64, hash: impl Fn(u64) -> u64) -> usize {
        let trie = Trie::new();
        let steps = Cell::new(0);
        let is = |own: &u64, value: u64| {
            steps.set(steps.get() + 1);
            *own == value
        };
        (0..count).for_each(|n| _ = trie.find_or_add(|| hash(n), |own| is(own, n), || n));
        let steps_to = |n| {
            steps.set(0);
            trie.find(|| hash(n), |own| is(own, n)).expect("it was added");
            steps.get()
        };
        (0..count).map(steps_to).max().expect("there are some")
    }

    #[test]
    fn one_of_many_is_found_in_few_steps_and_values_of_one_hash_are_all_found() {
        assert_eq!(most_steps(1, |_| unreachable!("one value is compared and not hashed")), 1);
        let steps = most_steps(10_000, hash_of);
        assert!(steps < 20, "{steps} steps");
        assert_eq!(most_steps(100, |_| 7), 100);
    }
}
