//! `#[tracked]`: an item whose code `deps(..)` can name.
//!
//! ```text
//! #[tracked(deps(b))]           fn a() -> u8 { .. }
//! fn a() -> u8 { .. }           enum a {}
//!                               impl a { const CODE: u128 = code(<hash of the tokens>, &[b::CODE]); }
//! ```
//!
//! The companion has the item's visibility and its `cfg`s, so that `deps(path)` works wherever the item itself can be
//! named. A `#[cache]` function's companion has a `CODE` as well: each of the two can depend on the other kind. A
//! circle of `deps` is a constant that needs itself, which the compiler refuses.
//!
//! The hash of a dependency is made by the compiler, as it evaluates the constant, and not by the macro: a macro sees
//! the path `b` and cannot look up what stands there.

use crate::code::Code;
use crate::options::{OF_TRACKED, Options};
use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens as _, quote};
use syn::{Attribute, Error, Item, Path, Result, Visibility};

/// The item, unchanged, and its companion; or the item and the error.
pub(crate) fn expand(options: TokenStream, item: TokenStream) -> TokenStream {
    match try_expand(options, item.clone()) {
        Ok(code) => quote!(#item #code),
        Err(error) => {
            let error = error.into_compile_error();
            quote!(#item #error)
        }
    }
}

/// Of a function the signature and the body count. Of a constant or static its type and value count, and not its
/// name. Attributes count for nothing here.
fn try_expand(options: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let options = Options::parse(options, &OF_TRACKED)?;
    let item: Item = syn::parse2(item)?;
    let (attributes, visibility, ident, tokens) = match &item {
        Item::Fn(item) => {
            let (sig, block) = (&item.sig, &item.block);
            (&item.attrs, &item.vis, &item.sig.ident, quote!(#sig #block))
        }
        Item::Const(item) => {
            let (ty, expr) = (&item.ty, &item.expr);
            (&item.attrs, &item.vis, &item.ident, quote!(const #ty = #expr))
        }
        Item::Static(item) => {
            let (ty, expr) = (&item.ty, &item.expr);
            (&item.attrs, &item.vis, &item.ident, quote!(static #ty = #expr))
        }
        other => {
            let text = "`tracked` is for functions, constants and statics";
            return Err(Error::new_spanned(first_token(other), text));
        }
    };
    let mut code = Code::new();
    code.feed(tokens);
    let value = constant(&options.crate_path, code, &options.deps);
    Ok(companion(attributes, visibility, ident, &quote!(#visibility const CODE: u128 = #value;)))
}

/// The place at which an item that is neither is refused: its first word, and not all of its lines.
fn first_token(item: &Item) -> TokenStream {
    item.to_token_stream().into_iter().take(1).collect()
}

/// The constant in which the code of an item and of those it depends on is.
///
/// An expression of a `u128`, which the compiler evaluates. With `deps`, the hashes of those are mixed into the
/// item's own in the order in which they are named (`code` in `src/attribute/probe.rs`); so a change of a
/// dependency's dependency arrives too.
pub(crate) fn constant(crate_path: &Path, code: Code, deps: &[Path]) -> TokenStream {
    let own = code.hash();
    quote!(#crate_path::__private::code(#own, &[#(#deps::CODE),*]))
}

/// A type of the item's name, which is free: the item is a value.
///
/// An empty enum, as of a `#[cache]` function. A constant or a static has its name among the values as a function
/// has, so the name is free among the types for each of the three. Lints are allowed on it, since the user did not
/// write it.
fn companion(
    attributes: &[Attribute],
    visibility: &Visibility,
    ident: &Ident,
    members: &TokenStream,
) -> TokenStream {
    let cfgs = attributes.iter().filter(|attribute| attribute.path().is_ident("cfg"));
    let cfgs: Vec<_> = cfgs.collect();
    quote! {
        #(#cfgs)*
        #[doc(hidden)]
        #[allow(non_camel_case_types, dead_code, missing_debug_implementations, clippy::all)]
        #visibility enum #ident {}
        #(#cfgs)*
        #[allow(missing_docs, unreachable_pub, dead_code, clippy::all)]
        impl #ident {
            /// The hash of the item's code.
            #members
        }
    }
}
