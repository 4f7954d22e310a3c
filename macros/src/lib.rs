//! The macros of `persist-cache`, which re-exports them and is where they are documented.

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
