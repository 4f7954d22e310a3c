//! The macros of `persist-cache`, which re-exports them and is where they are documented.
//!
//! ```text
//! #[cache(..)] fn f      options --> function --> code --> cache/     the function, and its companion
//! #[tracked(..)] fn f    options -------------> code --> tracked      the item, and a companion with its hash
//! #[derive(CacheKey)]    derive                                       an `impl CacheKey`
//! #[derive(Schema)]      derive                                       an `impl Schema`
//! ```
//!
//! What all four keep to:
//!
//! 1. A macro sees tokens and no types. Whatever depends on a type is decided by the compiler, in what the expansion
//!    calls: `persist_cache::__private`, whose source is `src/attribute/`.
//! 2. What a macro refuses, it refuses at the place of the offending tokens, and says what to write instead.
//!    `tests/ui` pins each text.
//! 3. An attribute that refuses its item gives the item back beside the error, so that the item's users have no
//!    errors of their own. A derive need not: the compiler keeps the item.
//! 4. Paths of what is not the user's begin with `::core`, `::std` or the path of `persist-cache` (the option
//!    `crate`), so that nothing that a user's module has in scope changes what they mean.
//! 5. Nothing is read but the tokens: no manifest, no environment, no file. What depends on those (the package's
//!    name, the place in the source) is asked by `option_env!` and `file!` in the expansion. To find `persist-cache`
//!    under another name, the manifest of the user's package could be read (crates exist for that); the option
//!    `crate` was preferred, as it needs no guess when the manifest does not tell.
//!
//! The first parameter of each of these functions is what stands in the brackets, the second is the item. They only
//! convert between the compiler's token streams and those of `proc_macro2`, which exist outside of a compiler too:
//! that is why the hash of code can have unit tests.

// In reading order: each stands on those above it.
mod code;
mod options;
mod function;
mod tracked;
mod derive;
mod cache;

use proc_macro::TokenStream;
use syn::parse_macro_input;

/// See `persist_cache::cache`.
#[proc_macro_attribute]
pub fn cache(options: TokenStream, item: TokenStream) -> TokenStream {
    cache::expand(options.into(), item.into()).into()
}

/// See `persist_cache::tracked`.
#[proc_macro_attribute]
pub fn tracked(options: TokenStream, item: TokenStream) -> TokenStream {
    tracked::expand(options.into(), item.into()).into()
}

/// See `persist_cache::CacheKey`.
#[proc_macro_derive(CacheKey, attributes(cache_key))]
pub fn derive_cache_key(item: TokenStream) -> TokenStream {
    let input = parse_macro_input!(item as syn::DeriveInput);
    derive::cache_key(input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// See `persist_cache::Schema`.
#[proc_macro_derive(Schema, attributes(schema))]
pub fn derive_schema(item: TokenStream) -> TokenStream {
    let input = parse_macro_input!(item as syn::DeriveInput);
    derive::schema(input).unwrap_or_else(syn::Error::into_compile_error).into()
}
