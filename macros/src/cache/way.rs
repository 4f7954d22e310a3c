//! The ways to call a function that has a cache, and what the spelling of its result's type says.
//!
//! ```text
//! way         what it does                      async if the function is    of iterators and streams
//! run         the function as its callers see it           yes                        yes
//! archived    the result as it lies in the file            yes                        no
//! peek        the same, if it is there                     no                         no
//! forget      removes the result                           no                         yes
//! refresh     computes and replaces                        yes                        yes
//! ```
//!
//! The macro cannot know whether a type is a `Result`. It needs that in one place alone: in the signature of the ways
//! that read in place, since `Cached<Result<V, E>>` is not what they give. So the spelling is asked for as much as it
//! can tell ([`Spelling`]), and where it tells nothing, the compiler decides: see `read_in_place` in [`super`].

use crate::function::peel;
use syn::Type;

/// A way to call a function.
///
/// Each is a function beside the one that the user wrote, but for `Run`, which is that function.
#[derive(Clone, Copy)]
pub(super) enum Way {
    Run,
    Archived,
    Peek,
    Forget,
    Refresh,
}

impl Way {
    /// The method of the companion, or its name behind the prefix of a method's companions.
    pub(super) fn name(self) -> &'static str {
        match self {
            Way::Run => "run",
            Way::Archived => "archived",
            Way::Peek => "peek",
            Way::Forget => "forget",
            Way::Refresh => "refresh",
        }
    }

    /// What the user's documentation says of it. `Run` has the documentation of the function.
    pub(super) fn doc(self) -> &'static str {
        match self {
            Way::Run => "",
            Way::Archived => {
                "The result as it is stored, in the file itself; computed if it is not."
            }
            Way::Peek => "The result as it is stored, if it is. Never computes.",
            Way::Forget => {
                "Removes the result for these arguments; `true` if there was one. A computation of it \
                 that is under way is not stored."
            }
            Way::Refresh => "Computes the result anew, and stores it in place of what is there.",
        }
    }

    /// Whether it may compute, and so is async where the function is. `peek` and `forget` never are: they block the
    /// thread where the cache has to be opened or its lock waited for.
    pub(super) fn is_async(self) -> bool {
        matches!(self, Way::Run | Way::Archived | Way::Refresh)
    }
}

/// What the spelling of a type says about whether it is a `Result`.
///
/// `Plain` and `Result` give signatures without a type parameter, which are easier to read in the user's
/// documentation. `Unclear` is right in any case.
pub(super) enum Spelling {
    Plain,
    Result,
    /// It may be an alias.
    Unclear,
}

/// The last segment of the path decides, so that `std::io::Result<u8>` is a `Result`. A user's type with the name of
/// one of the plain ones counts as that. A user's type called `Result` that is none is an error of the build where
/// there are companions that read it in place: `SpelledResult` is not implemented for it.
pub(super) fn spelling(ty: &Type) -> Spelling {
    let ty = peel(ty);
    const PLAIN: [&str; 16] = [
        "bool", "char", "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64",
        "i128", "f32", "f64", "String",
    ];
    match ty {
        Type::Tuple(tuple) if tuple.elems.is_empty() => Spelling::Plain,
        Type::Path(path) => match &path.path.segments.last().expect("a path has a segment").ident {
            ident if PLAIN.iter().any(|plain| ident == plain) => Spelling::Plain,
            ident if ident == "Result" => Spelling::Result,
            _ => Spelling::Unclear,
        },
        _ => Spelling::Unclear,
    }
}
