//! `#[tracked]`: an item whose code `deps(..)` can name.

use crate::code::Code;
use crate::options::{OF_TRACKED, Options};
use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens as _, quote};
use syn::{Attribute, Error, Item, Path, Result, Visibility};

pub(crate) fn expand(options: TokenStream, item: TokenStream) -> TokenStream {
    match try_expand(options, item.clone()) {
        Ok(code) => quote!(#item #code),
        Err(error) => {
            let error = error.into_compile_error();
            quote!(#item #error)
        }
    }
}

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

fn first_token(item: &Item) -> TokenStream {
    item.to_token_stream().into_iter().take(1).collect()
}

/// The constant in which the code of an item and of those it depends on is.
pub(crate) fn constant(crate_path: &Path, code: Code, deps: &[Path]) -> TokenStream {
    let own = code.hash();
    quote!(#crate_path::__private::code(#own, &[#(#deps::CODE),*]))
}

/// A type of the item's name, which is free: the item is a value.
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
