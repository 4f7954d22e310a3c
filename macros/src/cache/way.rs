//! The ways to call a function that has a cache, and what the spelling of its result's type says.

use crate::function::peel;
use syn::Type;

/// A way to call a function.
#[derive(Clone, Copy)]
pub(super) enum Way {
    Run,
    Archived,
    Peek,
    Forget,
    Refresh,
}

impl Way {
    pub(super) fn name(self) -> &'static str {
        match self {
            Way::Run => "run",
            Way::Archived => "archived",
            Way::Peek => "peek",
            Way::Forget => "forget",
            Way::Refresh => "refresh",
        }
    }

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

    pub(super) fn is_async(self) -> bool {
        matches!(self, Way::Run | Way::Archived | Way::Refresh)
    }
}

/// What the spelling of a type says about whether it is a `Result`.
pub(super) enum Spelling {
    Plain,
    Result,
    /// It may be an alias.
    Unclear,
}

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
