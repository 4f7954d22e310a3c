//! Scopes: which function or table an entry belongs to, and with which types.
//!
//! A scope is the hash of a name, the version of the code, the key's schema, the fingerprint of the result type,
//! and how rkyv lays values out here. What changes any of them is a miss; going back hits again. Where code or a
//! type is not known by what it is made of, the program as built is a part of the version.
//!
//! The eight bytes of it that stand in each record keep functions apart in one index. A file for each function
//! would do that without a hash; then a program of many functions would hold many files open, and none could share
//! a name.

use super::key::KeySchema;
use super::value::schema::{self, Schema, is_of_std};
use super::value::type_proof::Shape;
use crate::CacheValue;
use crate::engine::file::versions;
use crate::engine::format::record::Identity;
use crate::engine::os::program::Program;
use std::any::{TypeId, type_name};
use std::hash::{Hash as _, Hasher};
use std::panic::Location;
use std::sync::atomic::AtomicU64;

/// What tells one function or table of a cache from another.
#[derive(Clone)]
pub(crate) enum Name {
    /// A word of the user's.
    Given(String),
    /// A function or closure, of whose code nothing is known.
    Function(Unseen),
    /// A function that is marked with `#[cache]`.
    CachedFunction(CachedFunctionName),
}

/// A function or closure that was passed: one of the program as built, by its path and type, a closure by
/// its place in the source too. Paths alone are shared: by closures of one macro, by functions in two
/// blocks, by types in two versions of a crate, by crates of one name.
#[derive(Clone)]
pub(crate) struct Unseen {
    path: &'static str,
    id: TypeId,
    place: Option<&'static Location<'static>>,
    program: Program,
}

/// A cached function, by its path, its code, and what its generic parameters are in this instance.
#[derive(Clone)]
pub(crate) struct CachedFunctionName {
    /// Its path, and the package and target that it is in.
    pub(crate) path: String,
    /// The hash of its code, or what the user put in its place.
    pub(crate) version: String,
    /// The names of types and the values of constants.
    pub(crate) generics: String,
    /// The same types, and the function, as this process knows them: two of one name are still two.
    pub(crate) instance: (TypeId, TypeId),
    /// `None`: the names are enough to tell it from all others. Else it is one of this program's.
    pub(crate) program: Option<Program>,
    /// Its place in the source.
    pub(crate) at: &'static str,
}

impl Name {
    /// The name of a function or closure of type `F` that was passed at `place`.
    pub(crate) fn of<F: 'static>(place: &'static Location<'static>) -> Name {
        let path = type_name::<F>();
        let place = path.ends_with("{{closure}}").then_some(place);
        let program = Program::of(Name::of::<F> as *const ());
        Name::Function(Unseen { path, id: TypeId::of::<F>(), place, program })
    }

    fn text(&self) -> String {
        match self {
            Name::Given(name) => format!("name {name}"),
            Name::Function(Unseen { path, place: None, .. }) => format!("function {path}"),
            Name::Function(Unseen { path, .. }) => format!("closure {path}"),
            Name::CachedFunction(CachedFunctionName { path, generics, .. }) => {
                versions::cached_function(path) + generics
            }
        }
    }

    fn version(&self) -> &str {
        match self {
            Name::CachedFunction(function) => &function.version,
            Name::Given(_) | Name::Function(_) => "",
        }
    }

    fn program(&self) -> Option<Program> {
        match self {
            Name::Given(_) => None,
            Name::Function(unseen) => Some(unseen.program),
            Name::CachedFunction(function) => function.program,
        }
    }

    fn type_hash(&self) -> [u8; 32] {
        let mut bytes = Bytes(blake3::Hasher::new());
        match self {
            Name::Given(_) => {}
            Name::Function(Unseen { id, place, .. }) => {
                id.hash(&mut bytes);
                if let Some(place) = place {
                    bytes.0.update(place.to_string().as_bytes());
                }
            }
            Name::CachedFunction(function) if function.program.is_none() => {}
            Name::CachedFunction(function) => {
                function.instance.hash(&mut bytes);
                bytes.0.update(function.at.as_bytes());
            }
        }
        *bytes.0.finalize().as_bytes()
    }

    /// Whose the name is in this process, beside what its text says.
    fn instance(&self) -> (TypeId, TypeId) {
        match self {
            Name::CachedFunction(function) => function.instance,
            Name::Given(_) | Name::Function(_) => (TypeId::of::<()>(), TypeId::of::<()>()),
        }
    }
}

/// What is known of a result type.
#[derive(Clone)]
pub(crate) struct Fingerprint {
    /// The type's name, where that counts: a schema has its own.
    name: &'static str,
    counts: bool,
    hash: [u8; 32],
    /// The program that the type is of, where nothing else tells what it is made of.
    program: Option<Program>,
}

impl Fingerprint {
    /// What is known without a schema: its names, its layout and what the compiler's `TypeId` sees. What
    /// its fields and their types are made of is not seen, so a type of the user's is this program's; one
    /// of std's is what its name says.
    pub(crate) fn of_type<V: CacheValue>(shape: Shape) -> Fingerprint {
        let name = type_name::<V>();
        let program =
            (!is_of_std(name)).then(|| Program::of(Fingerprint::of_type::<V> as *const ()));
        let mut bytes = Bytes(blake3::Hasher::new());
        TypeId::of::<V>().hash(&mut bytes);
        TypeId::of::<V::Archived>().hash(&mut bytes);
        bytes.0.update(type_name::<V::Archived>().as_bytes());
        Fingerprint { name, counts: true, hash: bytes.finish::<V>(shape), program }
    }

    /// What its schema says, which no compiler and no version changes.
    pub(crate) fn of_schema<V: CacheValue + Schema>(shape: Shape) -> Fingerprint {
        let mut bytes = Bytes(blake3::Hasher::new());
        bytes.0.update(&schema::hash_of::<V>());
        let (name, hash) = (type_name::<V>(), bytes.finish::<V>(shape));
        Fingerprint { name, counts: false, hash, program: None }
    }
}

/// The scope of a table or memoised function.
pub(crate) struct Scope {
    pub(crate) hash: [u8; 32],
    pub(crate) name: Name,
    /// Whose it is in this process.
    pub(crate) instance: (TypeId, TypeId),
    /// What its record in the file says of it.
    pub(crate) description: Vec<u8>,
    /// Where this process last saw that record.
    pub(crate) seen: AtomicU64,
}

impl Scope {
    /// `program`: that which counts as code here, if the user says so.
    pub(crate) fn new(
        name: Name,
        key: KeySchema,
        fingerprint: &Fingerprint,
        program: Option<Program>,
    ) -> Scope {
        let (text, type_hash) = (name.text(), name.type_hash());
        let programs = [program, name.program(), fingerprint.program];
        let version = versions::of_programs(name.version(), &programs);
        let mut hasher = blake3::Hasher::new_derive_key("persist-cache scope 1");
        let mut feed = |field: &[u8]| {
            hasher.update(&(field.len() as u64).to_le_bytes());
            hasher.update(field);
        };
        feed(text.as_bytes());
        feed(version.as_bytes());
        feed(&key.bytes());
        feed(if fingerprint.counts { fingerprint.name.as_bytes() } else { &[] });
        feed(&fingerprint.hash);
        feed(&type_hash);
        feed(&[size_of::<rkyv::primitive::ArchivedUsize>() as u8]);
        let described: [&[u8]; 5] = [
            text.as_bytes(),
            version.as_bytes(),
            &key.bytes(),
            fingerprint.name.as_bytes(),
            &fingerprint.hash,
        ];
        let prefixed = |field: &&[u8]| [&(field.len() as u32).to_le_bytes(), *field].concat();
        let description = described.iter().flat_map(prefixed).collect();
        let (hash, instance) = (*hasher.finalize().as_bytes(), name.instance());
        Scope { hash, name, instance, description, seen: AtomicU64::new(0) }
    }

    /// The identity of the scope's own record.
    pub(crate) fn identity(&self) -> Identity {
        Identity { bytes: self.hash, form: Identity::SCOPE }
    }
}

/// Takes what a `TypeId` hashes of itself.
struct Bytes(blake3::Hasher);

impl Bytes {
    /// The hash, with the layout of the archived type and how many of them a value is.
    fn finish<V: CacheValue>(mut self, shape: Shape) -> [u8; 32] {
        self.write_u64(size_of::<V::Archived>() as u64);
        self.write_u64(align_of::<V::Archived>() as u64);
        self.write_u64(shape as u64);
        *self.0.finalize().as_bytes()
    }
}

impl Hasher for Bytes {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
    fn write_u64(&mut self, word: u64) {
        self.0.update(&word.to_le_bytes());
    }
    fn finish(&self) -> u64 {
        0 // Nobody asks: the whole hash is taken.
    }
}
