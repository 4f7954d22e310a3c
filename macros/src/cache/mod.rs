//! `#[cache]`: the function as it was to its callers, around the function as it was written.
//!
//! ```text
//! #[cache(expiry = "30d")]                 fn report(path: String) -> Report {
//! fn report(path: String) -> Report {          let function = report::__cached_function();      [cached_function]
//!     ..                                       let form = (&Probe::<Report>::new()).form();     a `Result` or not
//! }                                            let call = function.call(form, .., schema, feed);      [call]
//!                                              call.run(move || report::uncached(path))
//!                                          }
//!                                          enum report {}                                       the companion
//!                                          impl report {
//!                                              fn __cached_function() -> &'static CachedFunction { static .. }
//!                                              fn archived(..) fn peek(..) fn forget(..) fn refresh(..)  [way]
//!                                              fn flush() fn clear() fn stats() ..
//!                                              fn uncached(path: String) -> Report { .. }
//!                                          }
//! ```
//!
//! The outer function has the name, signature and attributes. It asks the cache by its arguments, and calls the
//! inner function on a miss. That is `uncached` of the companion, an empty enum of the function's name, since that
//! name is free among types; the other ways to call the function stand beside it. A method's inner function is a
//! closure in its body, as nothing but functions can stand in an `impl`; its companions, if they are asked for, are
//! methods with a name before theirs.
//!
//! Local names of the expansion have spans of their own, which the user's names cannot meet. Errors about a type
//! have the place of that type: the trait bounds that find them stand in code with its span.
//!
//! Most of what an expansion does is in the crate's `__private` module, where a fault can be mended without the
//! users' code being built anew.
//!
//! The companion was a choice among four. A module of the function's name would be as easy to reach; but a module has
//! nothing of what is around it in scope without imports, and can implement no trait. Functions with suffixes
//! (`f_flush`, `f_clear`) fill the user's namespace. A static of the function's name that dereferences to a handle is
//! no function any more: it could be neither generic nor passed on. The empty enum costs a page of rustdoc, and
//! rustdoc asks whoever links to the function to write it with its parentheses.
//!
//! Where the pieces are, by what the user wrote:
//!
//! ```text
//!                               static                      inner function            other ways
//! function                      in the companion            companion::uncached       companion::peek, ..
//! function, companion = none    in the outer function       in the outer function     none
//! method                        in the method               a closure in the method   none
//! method, companion = name      Self::__name_cached_..      Self::name_uncached       Self::name_peek, ..
//! ```
//!
//! Here nothing fails any more: what is wrong was refused when the [`Function`] was made, and an expansion only reads
//! that.

// In reading order: the parts of an expansion, which this module puts together.
mod way;
mod cached_function;
mod call;

use crate::function::{Function, Gives};
use crate::options::{OF_CACHE, Options};
use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote};
use syn::ext::IdentExt as _;
use syn::{Attribute, ItemFn, Meta, Result, Signature};
use way::{Spelling, Way, spelling};

/// The expansion. One that fails is the function as it is and the error, so that whoever calls the function has no
/// error for that.
pub(crate) fn expand(options: TokenStream, item: TokenStream) -> TokenStream {
    match try_expand(options, item.clone()) {
        Ok(expansion) => expansion,
        Err(error) => {
            // The function as it is, so that its callers do not fail as well.
            let error = error.into_compile_error();
            quote!(#item #error)
        }
    }
}

/// The options are read first, since they say whether the function is a method. Anything but a function with a body
/// is refused with one text: a struct, a closure, a method that a trait only declares.
fn try_expand(options: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let options = Options::parse(options, &OF_CACHE)?;
    let item: ItemFn = syn::parse2(item).map_err(|error| {
        let text = "`cache` is for functions and methods with a body";
        syn::Error::new(error.span(), text)
    })?;
    let function = Function::new(item, &options)?;
    Ok(Expansion { function: &function, options: &options }.all())
}

/// A name that no name of the user's can be.
///
/// `mixed_site` is the hygiene of `macro_rules!`: such a local name does not see the user's, nor they it. An item's
/// name has no hygiene; so those begin with two underscores, or stand in the companion.
fn own(name: &str) -> Ident {
    Ident::new(name, Span::mixed_site())
}

/// The place of something of the user's, for what is not the user's.
///
/// Errors about it are told at `span`, while names in it resolve as the expansion's own.
fn hygienic(span: Span) -> Span {
    Span::mixed_site().located_at(span)
}

/// Whether an attribute sets the level of a lint: those follow the body to wherever it is.
fn is_lint(attribute: &Attribute) -> bool {
    ["allow", "expect", "warn", "deny", "forbid"].iter().any(|lint| attribute.path().is_ident(lint))
}

/// Its methods stand in three files: here what stands beside the function, in `cached_function` the static, in `call`
/// the bodies.
struct Expansion<'a> {
    function: &'a Function,
    options: &'a Options,
}

impl Expansion<'_> {
    /// The outer function, and what stands beside it.
    ///
    /// `companion` says whether there are other ways and what they are called, `is_method` where they can stand.
    fn all(&self) -> TokenStream {
        let outer = self.outer();
        match (&self.function.companion, self.function.is_method) {
            (None, _) => outer,
            (Some(name), false) => {
                let companion = self.companion(name);
                quote!(#outer #companion)
            }
            (Some(prefix), true) => {
                let members = self.members(Some(prefix));
                quote!(#outer #members)
            }
        }
    }

    /// The function that is called.
    ///
    /// Of the attributes, all stay but levels of lints, where the body has gone elsewhere. There `allow` stays, since
    /// the signature is here as well. `expect` becomes `allow`: if nothing is left here to be found, an expectation
    /// would itself be a warning.
    fn outer(&self) -> TokenStream {
        let Function { item, companion, .. } = self.function;
        // Lints are about the body, wherever that is; what is allowed there is allowed here.
        let has_body = companion.is_none();
        let attributes = item.attrs.iter().filter_map(|attribute| match &attribute.meta {
            Meta::List(list) if !has_body && attribute.path().is_ident("expect") => {
                let lints = &list.tokens;
                Some(quote!(#[allow(#lints)]))
            }
            _ if !has_body && is_lint(attribute) && !attribute.path().is_ident("allow") => None,
            _ => Some(quote!(#attribute)),
        });
        let (visibility, signature) =
            (self.function.visibility(), self.function.signature(has_body));
        let local = companion.is_none().then(|| self.cached_function(Some(self.function.name())));
        let body = self.call(Way::Run);
        quote! {
            #(#attributes)*
            #visibility #signature {
                #local
                #body
            }
        }
    }

    /// The type beside the function, with the other ways to call it.
    ///
    /// It is as visible as the function, and is there under the same `cfg`. The lints that are allowed on it are
    /// about names and the like, which are not the user's choice.
    fn companion(&self, name: &Ident) -> TokenStream {
        let visibility = self.function.visibility();
        let cfgs: Vec<_> =
            self.function.item.attrs.iter().filter(|a| a.path().is_ident("cfg")).collect();
        let function = self.function.name().unraw();
        let doc = format!(
            "The cache of [`{function}()`] and the other ways to call it: see `persist_cache::cache`."
        );
        let members = self.members(None);
        quote! {
            #(#cfgs)*
            #[doc = #doc]
            #[allow(non_camel_case_types, dead_code, missing_debug_implementations, clippy::all)]
            #visibility enum #name {}
            #(#cfgs)*
            #[allow(unreachable_pub)]
            impl #name { #members }
        }
    }

    /// The path of `persist-cache` in the user's crate.
    fn crate_path(&self) -> &syn::Path {
        &self.options.crate_path
    }

    /// The module of what expansions call.
    fn private(&self) -> TokenStream {
        let crate_path = self.crate_path();
        quote!(#crate_path::__private)
    }

    /// What a member of the companion is called.
    fn member(&self, prefix: Option<&Ident>, name: &str) -> Ident {
        match prefix {
            Some(prefix) => format_ident!("{}_{name}", prefix, span = prefix.span()),
            None => Ident::new(name, self.function.name().span()),
        }
    }

    /// What stands in the companion; of a method, beside it, with a prefix before each name.
    ///
    /// `prefix` is that of a method's companions, `None` for a free function, whose companions stand in the enum. A
    /// method has no `CODE`, so `deps` cannot name one.
    fn members(&self, prefix: Option<&Ident>) -> TokenStream {
        let (crate_path, visibility) = (self.crate_path(), self.function.visibility());
        let cached_function_name = self.cached_function_name();
        let cached_function =
            self.cached_function(self.function.companion.as_ref().filter(|_| prefix.is_none()));
        let code = prefix.is_none().then(|| {
            let code = self.code();
            quote! {
                /// The hash of the function's code, and of that of its `deps`.
                #[allow(dead_code)]
                #visibility const CODE: u128 = #code;
            }
        });
        // What only a closure there has the type of: the generic parameters around a method.
        let witness = prefix.map(|prefix| {
            let witness = format_ident!("__{}_witness", prefix.unraw());
            quote! {
                #[doc(hidden)]
                #[allow(dead_code)]
                fn #witness() -> impl ::core::marker::Sized {
                    || {}
                }
            }
        });
        let upkeep = self.upkeep(prefix);
        let mut ways = vec![Way::Forget, Way::Refresh];
        if let Gives::Value(_) = self.function.gives {
            ways.extend([Way::Archived, Way::Peek]);
        }
        let ways = ways.iter().map(|way| self.way(prefix, *way));
        let uncached = self.uncached(prefix);
        let allow = quote!(#[allow(dead_code)]);
        let cache = self.member(prefix, "cache");
        quote! {
            #code
            #cached_function
            #witness
            /// The function's own handle on its cache.
            #allow
            #visibility fn #cache() -> #crate_path::MmapCache {
                ::core::clone::Clone::clone(Self::#cached_function_name().cache())
            }
            #upkeep
            #(#ways)*
            #uncached
        }
    }

    /// What the cache offers, by the names it has there.
    ///
    /// They are the methods of the static, one by one, and do to the whole file what `MmapCache`'s do. `set_expiry`
    /// is by itself, since it takes an argument.
    fn upkeep(&self, prefix: Option<&Ident>) -> TokenStream {
        let (crate_path, visibility, cached_function) =
            (self.crate_path(), self.function.visibility(), self.cached_function_name());
        let allow = quote!(#[allow(dead_code)]);
        let offers: [(&str, TokenStream, &str); 5] = [
            (
                "flush",
                quote!(#crate_path::Result<u64>),
                "Removes the entries of the cache that have expired, and returns how many.",
            ),
            (
                "clear",
                quote!(#crate_path::Result<()>),
                "Removes all entries of the cache, those of other functions that share it too.",
            ),
            ("delete", quote!(#crate_path::Result<()>), "Removes the file of the cache."),
            (
                "compact",
                quote!(#crate_path::Result<#crate_path::Compaction>),
                "Rewrites the file of the cache with its live entries alone.",
            ),
            ("stats", quote!(#crate_path::Stats), "Counts, of the cache and of this process."),
        ];
        let offers = offers.iter().map(|(name, output, doc)| {
            let (member, method) = (self.member(prefix, name), format_ident!("{name}"));
            quote! {
                #[doc = #doc]
                #allow
                #visibility fn #member() -> #output { Self::#cached_function().#method() }
            }
        });
        let set_expiry = self.member(prefix, "set_expiry");
        quote! {
            /// Sets the expiry of this function's entries, at once; other functions keep theirs.
            #allow
            #visibility fn #set_expiry(
                expiry: impl ::core::convert::Into<::core::option::Option<::core::time::Duration>>,
            ) {
                Self::#cached_function().set_expiry(expiry)
            }
            #(#offers)*
        }
    }

    /// Another way to call the function, with its arguments.
    ///
    /// The body is that of [`call`](Expansion::call), where all ways differ in the method that ends them. Arguments
    /// that the body does not mention are allowed: `forget` passes none on, and `ignore` leaves them out of the key.
    fn way(&self, prefix: Option<&Ident>, way: Way) -> TokenStream {
        let crate_path = self.crate_path();
        let mut signature = self.function.signature(false);
        signature.ident = self.member(prefix, way.name());
        match way {
            Way::Run | Way::Refresh => {}
            Way::Forget => {
                signature.asyncness = None;
                signature.output = syn::parse_quote!(-> #crate_path::Result<bool>);
            }
            Way::Archived | Way::Peek => {
                self.read_in_place(&mut signature, matches!(way, Way::Peek))
            }
        }
        let (visibility, doc, body) = (self.function.visibility(), way.doc(), self.call(way));
        let allow = quote!(#[allow(dead_code, unused_variables, clippy::too_many_arguments)]);
        quote! {
            #[doc = #doc]
            #allow
            #visibility #signature { #body }
        }
    }

    /// Gives a signature the output of a function that reads its result in place. Where the spelling of the result's
    /// type does not say whether it is a `Result`, a type parameter stands for what is stored, bound to be that.
    ///
    /// The type parameter is a trick. `archived` has to give `Cached<V>`, whether the function gives a `V` or an
    /// alias of `Result<V, E>`, and the macro cannot spell that type. So the signature says `Cached<S>` with `Stored:
    /// Is<S>`, which just one `S` fulfils, and callers infer it. If the type is an alias of `Result`, that `S` is the
    /// `Result` itself: `infallible` refuses that when it is compiled, and says to spell `Result`. The parameter is
    /// the last one: a caller that writes the generic arguments of such a function has to write `_` for it.
    fn read_in_place(&self, signature: &mut Signature, is_peek: bool) {
        let (crate_path, stored) = (self.crate_path(), self.function.gives.stored());
        if is_peek {
            signature.asyncness = None;
        }
        let spelled = own("__PersistCacheSpelled");
        let (value, error, clause) = match spelling(stored) {
            Spelling::Plain => (quote!(#stored), None, None),
            Spelling::Result => {
                let of = quote!(<#stored as #crate_path::__private::SpelledResult>);
                (quote!(#spelled), Some(quote!(#of::Error)), Some(quote!(#of::Value)))
            }
            Spelling::Unclear => (quote!(#spelled), None, Some(quote!(#stored))),
        };
        if let Some(same) = clause {
            signature.generics.params.push(syn::parse_quote!(#spelled));
            let clause = signature.generics.make_where_clause();
            clause.predicates.push(syn::parse_quote!(#spelled: #crate_path::CacheValue));
            let is = quote!(#crate_path::__private::Is<#spelled>);
            clause.predicates.push(syn::parse_quote!(#same: #is));
        }
        let cached = quote!(#crate_path::Cached<#value>);
        let output = match (is_peek, error) {
            (true, _) => quote!(::core::option::Option<#cached>),
            (false, Some(error)) => quote!(::core::result::Result<#cached, #error>),
            (false, None) => cached,
        };
        signature.output = syn::parse_quote!(-> #output);
    }

    /// The function as it was written.
    ///
    /// It has the body, hence the lints of it, and is public as the function is: users may call it to go around the
    /// cache.
    fn uncached(&self, prefix: Option<&Ident>) -> TokenStream {
        let ItemFn { attrs, sig, block, .. } = &self.function.item;
        let lints = attrs.iter().filter(|attribute| is_lint(attribute));
        let mut signature = sig.clone();
        signature.ident = self.member(prefix, "uncached");
        let visibility = self.function.visibility();
        quote! {
            /// The function itself, without the cache.
            #(#lints)*
            #[allow(dead_code)]
            #visibility #signature #block
        }
    }
}
