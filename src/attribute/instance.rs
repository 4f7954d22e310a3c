//! Which instance of a generic function a call is of, and whether its names tell that to any process.

use super::declaration::Declaration;
use crate::memo::value::schema::is_of_std;
use std::any::{TypeId, type_name};
use std::marker::PhantomData;

/// Which instance of a generic function it is: its types, lifetimes left out, and its constants.
pub struct Instance<'a> {
    pub(super) types: TypeId,
    /// The names of the function's own types...
    names: fn() -> &'static str,
    /// ...and of a method's `Self`.
    pub(super) self_name: Option<fn() -> &'static str>,
    pub(super) consts: &'a [u128],
}

impl<'a> Instance<'a> {
    /// Of a function. `types` is a tuple of a [`PhantomData`] for each.
    #[inline]
    pub fn new<T>(_types: &T, consts: &'a [u128]) -> Instance<'a> {
        let types = typeid::of::<T>();
        Instance { types, names: type_name::<T>, self_name: None, consts }
    }

    /// Of a method. All generic parameters that are around it are in the type of `witness`.
    #[inline]
    pub fn within<W, T>(
        _witness: &W,
        self_name: fn() -> &'static str,
        _types: &T,
        consts: &'a [u128],
    ) -> Instance<'a> {
        let types = typeid::of::<(PhantomData<W>, PhantomData<T>)>();
        Instance { types, names: type_name::<T>, self_name: Some(self_name), consts }
    }

    /// The names and values, to tell instances from each other in the file.
    pub(super) fn generics(&self) -> String {
        let self_name = self.self_name.map_or("", |name| name());
        let own = (self.names)().replace("core::marker::PhantomData", "");
        let consts = self.consts.iter().map(|value| format!(" {value}"));
        consts.fold(format!("{self_name} {own}"), |generics, value| generics + &value)
    }

    /// Whether the names say all, and to any process: those of the function's own types are names of
    /// std's; and a method is of a type without parameters, in the module that the type is in.
    pub(super) fn is_named(&self, declaration: &Declaration) -> bool {
        if !is_of_std((self.names)()) {
            return false;
        }
        let Some(self_name) = self.self_name.map(|name| name()) else { return true };
        let ident = self_name.strip_prefix(declaration.module).and_then(|s| s.strip_prefix("::"));
        let is_plain =
            ident.is_some_and(|ident| ident.chars().all(|c| c == '_' || c.is_alphanumeric()));
        // Of its own, or of a trait: then the parameters of the trait stand in the place, as `_` those
        // of the implementation.
        let place = (declaration.place)();
        let of_trait = place.strip_prefix('<').and_then(|s| s.strip_prefix(self_name));
        let is_own = place.starts_with(&format!("{self_name}::"));
        let is_of_trait = of_trait.is_some_and(|rest| rest.starts_with(" as ") && !has_blank(rest));
        is_plain && (is_own || is_of_trait)
    }
}

/// Whether a name has a `_` in place of a parameter.
fn has_blank(name: &str) -> bool {
    name.split(|c: char| c != '_' && !c.is_alphanumeric()).any(|part| part == "_")
}

/// The type of a value, for an [`Instance`].
pub fn type_of<T: ?Sized>(_value: &T) -> PhantomData<fn(&T)> {
    PhantomData
}
