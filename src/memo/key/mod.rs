//! From a call's argument to the identity of its record. The encoding is canonical: equal arguments
//! encode alike in every process, on every machine, and different arguments of one type never do. It
//! is part of the file format (`docs/format.md`) and pinned by the golden vectors in `key/tests.rs`.
//! Types stand in the scope, once, as a [`KeySchema`], and not in each key.

pub(crate) mod file_key;
mod impls;
#[cfg(test)]
mod tests;

use crate::engine::format::record::{INLINE_KEY, Identity};

/// A type whose values can be the argument of a memoised function, or the key of a table.
///
/// It is implemented for integers, floats, `bool`, `char`, strings, paths, byte and other slices, arrays,
/// `Vec`, `VecDeque`, `Option`, `Result`, `Box`, `Rc`, `Arc`, `Cow`, references, the maps and sets of std,
/// tuples of up to twelve, `Duration`, `SystemTime`, IP and socket addresses, and `()`. For a type of your own,
/// [derive it](derive@crate::CacheKey).
///
/// Two values that feed alike are one key. An implementation by hand has to feed all that the result depends on, in
/// a fixed order, and an enum's variant before its fields ([`KeyWriter::variant`]).
///
/// # Cost
/// A key is encoded on each call. Of up to 24 bytes, the encoding is the key; a longer one is hashed with BLAKE3. Only
/// maps and sets allocate.
///
/// # Examples
/// ```
/// use persist_cache::{CacheKey, KeySchema, KeyWriter};
///
/// struct Query { text: String, limit: Option<u32> }
///
/// impl CacheKey for Query {
///     const SCHEMA: KeySchema = KeySchema::new("Query")
///         .field("text", String::SCHEMA)
///         .field("limit", <Option<u32>>::SCHEMA);
///
///     fn feed(&self, key: &mut KeyWriter) {
///         self.text.feed(key);
///         self.limit.feed(key);
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the key of a cached call",
    label = "not a `CacheKey`",
    note = "derive `persist_cache::CacheKey` on it",
    note = "for a type of another crate, memoise over something that identifies its value, \
            with `key = ..` for instance; or leave it out, with `ignore(..)`"
)]
pub trait CacheKey {
    /// The shape of the type. A change of it makes all entries misses.
    const SCHEMA: KeySchema;

    /// Writes the value's encoding.
    ///
    /// It runs on each call, hit or miss, so it should neither allocate nor wait.
    fn feed(&self, key: &mut KeyWriter);

    /// Writes the encodings of several values, without their number.
    ///
    /// The default writes one after the other. An implementation that can write all in one piece, as for bytes, has
    /// to write the same.
    fn feed_slice(values: &[Self], key: &mut KeyWriter)
    where
        Self: Sized,
    {
        values.iter().for_each(|value| value.feed(key));
    }
}

/// The shape of a key type, as a hash that constants can be made of.
///
/// # Examples
/// ```
/// use persist_cache::{CacheKey, KeySchema};
///
/// const POINT: KeySchema = KeySchema::new("Point").field("x", u32::SCHEMA).field("y", u32::SCHEMA);
/// const SWAPPED: KeySchema = KeySchema::new("Point").field("y", u32::SCHEMA).field("x", u32::SCHEMA);
/// assert_ne!(POINT, SWAPPED);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeySchema(u128);

impl KeySchema {
    /// Returns the schema of a type of this name, without parts. The name should not change.
    ///
    /// # Cost
    /// Hashes the name; in a constant, when the program is compiled.
    ///
    /// # Examples
    /// ```
    /// use persist_cache::KeySchema;
    /// assert_ne!(KeySchema::new("Point"), KeySchema::new("Place"));
    /// ```
    #[must_use]
    pub const fn new(name: &str) -> KeySchema {
        // The offset basis of 128-bit FNV-1a.
        KeySchema(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d).with(name.as_bytes())
    }

    /// Returns the schema of the type with another field or variant.
    ///
    /// # Cost
    /// As [`new`](KeySchema::new).
    ///
    /// # Examples
    /// ```
    /// use persist_cache::{CacheKey, KeySchema};
    /// const POINT: KeySchema = KeySchema::new("Point").field("x", u32::SCHEMA).field("y", u32::SCHEMA);
    /// assert_ne!(POINT, KeySchema::new("Point").field("x", u32::SCHEMA));
    /// ```
    #[must_use]
    pub const fn field(self, name: &str, schema: KeySchema) -> KeySchema {
        self.with(name.as_bytes()).of(schema)
    }

    /// Returns the schema of the type with another type parameter.
    ///
    /// # Cost
    /// As [`new`](KeySchema::new).
    ///
    /// # Examples
    /// ```
    /// use persist_cache::{CacheKey, KeySchema};
    /// const fn pair_of(part: KeySchema) -> KeySchema { KeySchema::new("Pair").of(part) }
    /// assert_ne!(pair_of(u32::SCHEMA), pair_of(u64::SCHEMA));
    /// ```
    #[must_use]
    pub const fn of(self, schema: KeySchema) -> KeySchema {
        self.with(&schema.0.to_le_bytes())
    }

    /// Returns the schema of the type with another constant parameter.
    ///
    /// # Cost
    /// As [`new`](KeySchema::new).
    ///
    /// # Examples
    /// ```
    /// use persist_cache::{CacheKey, KeySchema};
    /// const fn row_of(len: usize) -> KeySchema { KeySchema::new("Row").constant(len as u128) }
    /// assert_ne!(row_of(3), row_of(4));
    /// ```
    #[must_use]
    pub const fn constant(self, value: u128) -> KeySchema {
        self.with(&value.to_le_bytes())
    }

    const fn with(self, bytes: &[u8]) -> KeySchema {
        const PRIME: u128 = (1 << 88) + 0x13b;
        let mut hash = (self.0 ^ bytes.len() as u128).wrapping_mul(PRIME);
        let mut at = 0;
        while at < bytes.len() {
            hash = (hash ^ bytes[at] as u128).wrapping_mul(PRIME);
            at += 1;
        }
        KeySchema(hash)
    }

    pub(crate) const fn bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }
}

/// Takes a key's encoding, in [`CacheKey::feed`]: up to 24 bytes as they are, more as a hash of as many.
///
/// # Examples
/// ```
/// use persist_cache::{CacheKey, KeySchema, KeyWriter};
///
/// struct Color([u8; 3]);
///
/// impl CacheKey for Color {
///     const SCHEMA: KeySchema = KeySchema::new("Color");
///     fn feed(&self, key: &mut KeyWriter) { key.bytes(&self.0) }
/// }
/// ```
pub struct KeyWriter<'a> {
    /// What a long key is hashed under.
    scope: &'a [u8; 32],
    /// The first bytes, behind 8 bytes of the scope: an identity, unless more follow.
    inline: [u8; 32],
    len: usize,
    hasher: Option<blake3::Hasher>,
}

/// The bytes of the scope that stand before a key or its hash: they say whose record it is.
const PREFIX: usize = 32 - INLINE_KEY;

impl<'a> KeyWriter<'a> {
    #[inline]
    pub(crate) fn new(scope: &'a [u8; 32]) -> KeyWriter<'a> {
        let mut inline = [0; 32];
        inline[..PREFIX].copy_from_slice(&scope[..PREFIX]);
        KeyWriter { scope, inline, len: 0, hasher: None }
    }

    /// Writes bytes as they are.
    ///
    /// What has a length of its own must write that first ([`length`](KeyWriter::length)): else two keys could run
    /// together into one.
    ///
    /// # Cost
    /// A copy, as long as the key is no longer than 24 bytes; beyond that the key is hashed with BLAKE3. Allocates
    /// nothing.
    ///
    /// # Examples
    /// ```
    /// use persist_cache::{CacheKey, KeySchema, KeyWriter};
    ///
    /// struct Color([u8; 3]);
    ///
    /// impl CacheKey for Color {
    ///     const SCHEMA: KeySchema = KeySchema::new("Color");
    ///     fn feed(&self, key: &mut KeyWriter) { key.bytes(&self.0) }
    /// }
    /// ```
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        if end <= INLINE_KEY && self.hasher.is_none() {
            self.inline[PREFIX + self.len..PREFIX + end].copy_from_slice(bytes);
            self.len = end;
        } else {
            self.hash(bytes);
        }
    }

    #[cold]
    fn hash(&mut self, bytes: &[u8]) {
        let (scope, start) = (self.scope, &self.inline[PREFIX..PREFIX + self.len]);
        let hasher = self.hasher.get_or_insert_with(|| {
            let mut hasher = blake3::Hasher::new_keyed(scope);
            hasher.update(start);
            hasher
        });
        hasher.update(bytes);
    }

    /// Writes a length or count.
    ///
    /// # Cost
    /// As 8 [`bytes`](KeyWriter::bytes).
    ///
    /// # Examples
    /// ```
    /// use persist_cache::{CacheKey, KeySchema, KeyWriter};
    ///
    /// struct Name(String);
    ///
    /// impl CacheKey for Name {
    ///     const SCHEMA: KeySchema = KeySchema::new("Name");
    ///     fn feed(&self, key: &mut KeyWriter) {
    ///         key.length(self.0.len());
    ///         key.bytes(self.0.as_bytes());
    ///     }
    /// }
    /// ```
    #[inline]
    pub fn length(&mut self, length: usize) {
        self.bytes(&(length as u64).to_le_bytes());
    }

    /// Writes which variant of an enum follows.
    ///
    /// # Cost
    /// As 4 [`bytes`](KeyWriter::bytes).
    ///
    /// # Examples
    /// ```
    /// use persist_cache::{CacheKey, KeySchema, KeyWriter};
    ///
    /// enum Shape { Circle(u32), Square(u32) }
    ///
    /// impl CacheKey for Shape {
    ///     const SCHEMA: KeySchema =
    ///         KeySchema::new("Shape").field("Circle", u32::SCHEMA).field("Square", u32::SCHEMA);
    ///     fn feed(&self, key: &mut KeyWriter) {
    ///         let (variant, size) = match self {
    ///             Shape::Circle(radius) => (0, radius),
    ///             Shape::Square(side) => (1, side),
    ///         };
    ///         key.variant(variant);
    ///         size.feed(key);
    ///     }
    /// }
    /// ```
    #[inline]
    pub fn variant(&mut self, index: u32) {
        self.bytes(&index.to_le_bytes());
    }

    /// Writes a set of encodings in an order that depends on them alone, so that equal sets encode alike.
    ///
    /// # Cost
    /// Allocates 33 bytes for each item, hashes those that are longer than 24 bytes, and sorts them.
    ///
    /// # Examples
    /// ```
    /// use persist_cache::{CacheKey, KeySchema, KeyWriter};
    /// use std::collections::HashSet;
    ///
    /// struct Tags(HashSet<String>);
    ///
    /// impl CacheKey for Tags {
    ///     const SCHEMA: KeySchema = KeySchema::new("Tags").of(String::SCHEMA);
    ///     fn feed(&self, key: &mut KeyWriter) {
    ///         key.unordered(self.0.iter(), |tag, key| tag.feed(key));
    ///     }
    /// }
    /// ```
    pub fn unordered<T>(
        &mut self,
        items: impl ExactSizeIterator<Item = T>,
        feed: impl Fn(T, &mut KeyWriter<'_>),
    ) {
        self.length(items.len());
        let mut digests: Vec<[u8; 33]> = items
            .map(|item| {
                let mut key = KeyWriter::new(self.scope);
                feed(item, &mut key);
                let identity = key.finish();
                let mut digest = [identity.form; 33];
                digest[..32].copy_from_slice(&identity.bytes);
                digest
            })
            .collect();
        digests.sort_unstable();
        digests.iter().for_each(|digest| self.bytes(digest));
    }

    #[inline]
    pub(crate) fn finish(self) -> Identity {
        match self.hasher {
            None => Identity { bytes: self.inline, form: self.len as u8 },
            Some(hasher) => {
                let mut bytes = self.inline;
                bytes[PREFIX..].copy_from_slice(&hasher.finalize().as_bytes()[..INLINE_KEY]);
                Identity { bytes, form: Identity::HASHED }
            }
        }
    }
}

/// The identity of what `feed` writes in a scope.
#[inline]
pub(crate) fn identify_fed(scope: &[u8; 32], feed: impl FnOnce(&mut KeyWriter<'_>)) -> Identity {
    let mut writer = KeyWriter::new(scope);
    feed(&mut writer);
    writer.finish()
}

/// The identity of `key` in a scope.
#[inline]
pub(crate) fn identify<K: CacheKey + ?Sized>(scope: &[u8; 32], key: &K) -> Identity {
    identify_fed(scope, |writer| key.feed(writer))
}
