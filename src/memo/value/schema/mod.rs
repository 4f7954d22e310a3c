//! The schema of a result type: its fields and variants with their names, their types, and theirs.
//! rkyv's validation sees none of that, and a compiler's `TypeId` only some, and not for long. A type
//! that says its schema is told from every other, whatever compiler, profile and version built it.

mod impls;
#[cfg(test)]
mod tests;

use std::any::TypeId;

/// A result type that says what it is made of, so that its entries outlast builds and compilers.
///
/// A field that changes its name, place or type makes the entries misses, also a field of a nested type. A new
/// compiler, profile or crate version does not.
///
/// Derive it beside rkyv's traits. `#[cache]` functions find it by themselves. Closures and tables ask for it with
/// `with_schema` ([`Memoized::with_schema`](crate::Memoized::with_schema),
/// [`Table::with_schema`](crate::Table::with_schema)).
///
/// It is implemented for the types of std that rkyv can archive. The name of a type counts, the module that it is in
/// does not. What `#[rkyv(..)]` says of a field counts as well. A field whose type has no schema can be marked
/// `#[schema(opaque)]`: then its type counts as it is spelled, and that it means the same tomorrow is your word.
///
/// # Cost
/// A schema is hashed once for each table or function of the type, and never in a call.
///
/// # Examples
/// ```
/// use persist_cache::Schema;
/// use persist_cache::rkyv::{Archive, Deserialize, Serialize};
///
/// #[derive(Archive, Serialize, Deserialize, Schema)]
/// #[rkyv(crate = persist_cache::rkyv)]
/// struct Report { words: u64, longest: String }
///
/// # let dir = tempfile::tempdir().unwrap();
/// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
/// let reports = cache.table::<str, Report>("reports").with_schema();
/// # Ok::<(), persist_cache::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say its schema",
    label = "no `Schema`",
    note = "derive `persist_cache::Schema` on it",
    note = "for a field whose type is of another crate: `#[schema(opaque)]`"
)]
pub trait Schema: 'static {
    /// Writes the type's name and its parts.
    fn describe(schema: &mut SchemaWriter);
}

/// Takes the description of a type, in [`Schema::describe`]. Types that cannot derive [`Schema`] describe
/// themselves with it.
///
/// # Examples
/// ```
/// use persist_cache::{Schema, SchemaWriter};
///
/// struct Meters(f64);
///
/// impl Schema for Meters {
///     fn describe(schema: &mut SchemaWriter) {
///         schema.name("Meters");
///         schema.field::<f64>("0");
///     }
/// }
/// ```
pub struct SchemaWriter {
    hasher: blake3::Hasher,
    /// The types met so far; one that comes again is named by its number, so that a type may hold
    /// itself.
    met: Vec<TypeId>,
}

impl SchemaWriter {
    /// Writes the name of the type, or any other word that tells it from others.
    ///
    /// # Cost
    /// Hashes the word with BLAKE3, once for each table or function of the type.
    ///
    /// # Examples
    /// ```
    /// use persist_cache::{Schema, SchemaWriter};
    ///
    /// struct Unit;
    ///
    /// impl Schema for Unit {
    ///     fn describe(schema: &mut SchemaWriter) { schema.name("Unit") }
    /// }
    /// ```
    pub fn name(&mut self, name: &str) {
        self.word(b'n', name.as_bytes());
    }

    /// Writes a variant, whose fields follow.
    ///
    /// # Cost
    /// As [`name`](SchemaWriter::name).
    ///
    /// # Examples
    /// ```
    /// use persist_cache::{Schema, SchemaWriter};
    ///
    /// enum Shape { Circle(u32), Point }
    ///
    /// impl Schema for Shape {
    ///     fn describe(schema: &mut SchemaWriter) {
    ///         schema.name("Shape");
    ///         schema.variant("Circle");
    ///         schema.field::<u32>("0");
    ///         schema.variant("Point");
    ///     }
    /// }
    /// ```
    pub fn variant(&mut self, name: &str) {
        self.word(b'v', name.as_bytes());
    }

    /// Writes a field or element: its name, and the schema of its type.
    ///
    /// # Cost
    /// As [`name`](SchemaWriter::name), and the description of the field's type. A type that was described before is
    /// named by a number.
    ///
    /// # Examples
    /// ```
    /// use persist_cache::{Schema, SchemaWriter};
    ///
    /// struct Meters(f64);
    ///
    /// impl Schema for Meters {
    ///     fn describe(schema: &mut SchemaWriter) {
    ///         schema.name("Meters");
    ///         schema.field::<f64>("0");
    ///     }
    /// }
    /// ```
    pub fn field<T: Schema + ?Sized>(&mut self, name: &str) {
        self.word(b'f', name.as_bytes());
        self.of::<T>();
    }

    /// Writes the schema of a type that this one is made of, without a name.
    ///
    /// # Cost
    /// As [`field`](SchemaWriter::field).
    ///
    /// # Examples
    /// ```
    /// use persist_cache::{Schema, SchemaWriter};
    ///
    /// struct Stack<T>(Vec<T>);
    ///
    /// impl<T: Schema> Schema for Stack<T> {
    ///     fn describe(schema: &mut SchemaWriter) {
    ///         schema.name("Stack");
    ///         schema.of::<T>();
    ///     }
    /// }
    /// ```
    pub fn of<T: Schema + ?Sized>(&mut self) {
        let id = TypeId::of::<T>();
        match self.met.iter().position(|met| *met == id) {
            Some(number) => self.word(b'm', &(number as u64).to_le_bytes()),
            None => {
                self.met.push(id);
                self.word(b't', &[]);
                T::describe(self);
                self.word(b'e', &[]);
            }
        }
    }

    fn word(&mut self, tag: u8, bytes: &[u8]) {
        self.hasher.update(&[tag]);
        self.hasher.update(&(bytes.len() as u64).to_le_bytes());
        self.hasher.update(bytes);
    }
}

pub(crate) use crate::memo::value::schema::impls::is_of_std;

/// The hash of a type's schema.
pub(crate) fn hash_of<T: Schema>() -> [u8; 32] {
    let hasher = blake3::Hasher::new_derive_key("persist-cache schema 1");
    let mut schema = SchemaWriter { hasher, met: Vec::new() };
    schema.of::<T>();
    *schema.hasher.finalize().as_bytes()
}
