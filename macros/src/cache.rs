//! `#[cache]`: the function as it was to its callers, around the function as it was written.
//!
//! The outer function has the name, signature and attributes. It asks the cache by its arguments, and
//! calls the inner function on a miss. That is `uncached` of the companion, an empty enum of the
//! function's name, since that name is free among types; the other ways to call the function stand
//! beside it. A method's inner function is a closure in its body, as nothing but functions can stand
//! in an `impl`; its companions, if they are asked for, are methods with a name before theirs.
//!
//! Local names of the expansion have spans of their own, which the user's names cannot meet.

use crate::code::Code;
use crate::function::{Argument, Function, Gives, peel, span_of};
use crate::options::{OF_CACHE, Options};
use crate::tracked::constant;
use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens as _, format_ident, quote, quote_spanned};
use syn::ext::IdentExt as _;
use syn::spanned::Spanned as _;
use syn::{Attribute, ItemFn, Meta, Result, Type};

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
fn own(name: &str) -> Ident {
    Ident::new(name, Span::mixed_site())
}

/// The place of something of the user's, for what is not the user's.
fn hygienic(span: Span) -> Span {
    Span::mixed_site().located_at(span)
}

fn is_lint(attribute: &Attribute) -> bool {
    ["allow", "expect", "warn", "deny", "forbid"].iter().any(|lint| attribute.path().is_ident(lint))
}

struct Expansion<'a> {
    function: &'a Function,
    options: &'a Options,
}

impl Expansion<'_> {
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
        let local = companion.is_none().then(|| self.site(Some(self.function.name())));
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

    fn crate_path(&self) -> &syn::Path {
        &self.options.crate_path
    }

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

    fn members(&self, prefix: Option<&Ident>) -> TokenStream {
        let (crate_path, visibility) = (self.crate_path(), self.function.visibility());
        let site_name = self.site_name();
        let site = self.site(self.function.companion.as_ref().filter(|_| prefix.is_none()));
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
            #site
            #witness
            /// The function's own handle on its cache.
            #allow
            #visibility fn #cache() -> #crate_path::MmapCache {
                ::core::clone::Clone::clone(Self::#site_name().cache())
            }
            #upkeep
            #(#ways)*
            #uncached
        }
    }

    /// What the cache offers, by the names it has there.
    fn upkeep(&self, prefix: Option<&Ident>) -> TokenStream {
        let (crate_path, visibility, site) =
            (self.crate_path(), self.function.visibility(), self.site_name());
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
                #visibility fn #member() -> #output { Self::#site().#method() }
            }
        });
        let set_expiry = self.member(prefix, "set_expiry");
        quote! {
            /// Sets the expiry of this function's entries, at once; other functions keep theirs.
            #allow
            #visibility fn #set_expiry(
                expiry: impl ::core::convert::Into<::core::option::Option<::core::time::Duration>>,
            ) {
                Self::#site().set_expiry(expiry)
            }
            #(#offers)*
        }
    }

    /// Another way to call the function, with its arguments.
    fn way(&self, prefix: Option<&Ident>, way: Way) -> TokenStream {
        let crate_path = self.crate_path();
        let mut signature = self.function.signature(false);
        signature.ident = self.member(prefix, way.name());
        let stored = self.function.gives.stored().clone();
        match way {
            Way::Run | Way::Refresh => {}
            Way::Forget => {
                signature.asyncness = None;
                signature.output = syn::parse_quote!(-> #crate_path::Result<bool>);
            }
            Way::Archived | Way::Peek => {
                let is_peek = matches!(way, Way::Peek);
                if is_peek {
                    signature.asyncness = None;
                }
                let spelled = own("__PersistCacheSpelled");
                let (value, error, clause) = match spelling(&stored) {
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
        }
        let (visibility, doc, body) = (self.function.visibility(), way.doc(), self.call(way));
        let allow = quote!(#[allow(dead_code, unused_variables, clippy::too_many_arguments)]);
        quote! {
            #[doc = #doc]
            #allow
            #visibility #signature { #body }
        }
    }

    /// The function as it was written.
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

    fn site_name(&self) -> Ident {
        match (&self.function.companion, self.function.is_method) {
            (Some(prefix), true) => format_ident!("__{}_site", prefix.unraw()),
            _ => format_ident!("__site"),
        }
    }

    /// The function in which the function's static is, inside `parent` or beside the function.
    fn site(&self, parent: Option<&Ident>) -> TokenStream {
        let (private, name) = (self.private(), self.site_name());
        let function = self.function.name().unraw().to_string();
        let parent = parent.map_or_else(String::new, |parent| format!("::{}", parent.unraw()));
        let tail = format!("{parent}::{name}::__Here");
        let Options {
            version,
            name: cache,
            root,
            path,
            expiry,
            claim_timeout,
            record_limit,
            by_program,
            ..
        } = self.options;
        let option = |value: Option<TokenStream>| match value {
            Some(value) => quote!(::core::option::Option::Some(|| #value)),
            None => quote!(::core::option::Option::None),
        };
        let text = |value: &syn::Expr| quote!(::std::string::String::from(#value));
        let file = |value: &syn::Expr| quote!(::std::path::PathBuf::from(#value));
        let (cache, root) = (option(cache.as_ref().map(text)), option(root.as_ref().map(file)));
        let path = option(path.as_ref().map(file));
        let (expiry, claim_timeout, record_limit) =
            (option(expiry.clone()), option(claim_timeout.clone()), option(record_limit.clone()));
        let version = match version {
            Some(version) => {
                quote!(::std::format!("version {}", #version))
            }
            None => {
                let code = self.code();
                quote!({
                    const CODE: u128 = #code;
                    ::std::format!("code {:032x}", CODE)
                })
            }
        };
        quote! {
            #[doc(hidden)]
            #[allow(dead_code, clippy::all, clippy::pedantic)]
            fn #name() -> &'static #private::Site {
                enum __Here {}
                static SITE: #private::Site = #private::Site::new(#private::Declaration {
                    here: ::core::any::TypeId::of::<__Here>,
                    place: ::core::any::type_name::<__Here>,
                    tail: #tail,
                    module: ::core::module_path!(),
                    at: ::core::concat!(::core::file!(), ":", ::core::line!(), ":", ::core::column!()),
                    package: ::core::option_env!("CARGO_PKG_NAME"),
                    folder: #private::folder(
                        ::core::file!(),
                        ::core::option_env!("CARGO_MANIFEST_DIR"),
                    ),
                    executable: ::core::option_env!("CARGO_BIN_NAME"),
                    name: #function,
                    version: || #version,
                    cache: #cache,
                    root: #root,
                    path: #path,
                    expiry: #expiry,
                    claim_timeout: #claim_timeout,
                    record_limit: #record_limit,
                    by_program: #by_program,
                });
                &SITE
            }
        }
    }

    fn code(&self) -> TokenStream {
        let ItemFn { attrs, sig, block, .. } = &self.function.item;
        let mut code = Code::new();
        match &self.options.version {
            // It stands in for the code, to those who depend on this function too.
            Some(version) => code.feed(quote!(version = #version)),
            None => {
                // Attributes that say nothing of what is computed do not count.
                let silent = ["inline", "must_use", "cold", "cfg", "track_caller", "deprecated"];
                let counts = attrs.iter().filter(|attribute| {
                    !is_lint(attribute)
                        && !silent.iter().any(|name| attribute.path().is_ident(name))
                });
                code.feed(quote!(#(#counts)* #sig #block));
            }
        }
        self.options.feed(&mut code);
        constant(self.crate_path(), code, &self.options.deps)
    }

    /// The body of the outer function, or of another way to call it.
    fn call(&self, way: Way) -> TokenStream {
        let (private, function) = (self.private(), self.function);
        let stored = function.gives.stored();
        let span = hygienic(span_of(stored));
        let at_type = |name| Ident::new(name, span);
        let (form, describes) = (at_type("form"), at_type("describes"));
        let (site, call) = (at_type("site"), at_type("call"));
        let site_name = self.site_name();
        let at = match (&function.companion, function.is_method) {
            (None, _) => quote!(#site_name()),
            (Some(_), true) => quote!(Self::#site_name()),
            (Some(companion), false) => quote!(#companion::#site_name()),
        };
        let open = (function.is_async() && way.is_async()).then(|| quote!(#site.ready().await;));
        let witness = match (&function.companion, function.is_method) {
            (_, false) => None,
            (None, true) => Some(quote!(#private::type_of(&(|| {})))),
            (Some(prefix), true) => {
                let witness = format_ident!("__{}_witness", prefix.unraw());
                Some(quote!(#private::type_of(&Self::#witness())))
            }
        };
        let instance = function.instance(self.options, witness.as_ref());
        let chosen = self.options.key.as_ref().map(|key| {
            let chosen = own("chosen");
            quote!(let #chosen = &#key;)
        });
        let (schema, feed) = self.key();
        let enter = match function.gives {
            Gives::Value(_) => quote_spanned!(span=> call),
            // Without `ready` the call itself must not wait.
            Gives::Stream(_) if matches!(way, Way::Run) && !function.is_async() => {
                quote_spanned!(span=> stream)
            }
            Gives::Iter(_) | Gives::Stream(_) => quote_spanned!(span=> items),
        };
        let finish = self.finish(way, &call, &form, span);
        quote_spanned! {span=>
            let #site: &'static #private::Site = #at;
            #open
            let #form = {
                #[allow(unused_imports)]
                use #private::{ProbeFallible as _, ProbePlain as _};
                (&#private::Probe::<#stored>::new()).__persist_cache_form()
            };
            let #describes = {
                #[allow(unused_imports)]
                use #private::{ProbeSchema as _, ProbeType as _};
                (&#form).__persist_cache_describes()
            };
            let #call = {
                #chosen
                #site.#enter(#form, #describes, &#instance, #schema, #feed)
            };
            #finish
        }
    }

    /// The key, as two closures: one says its schema, the other feeds it. An argument that is none is
    /// told of at its type.
    fn key(&self) -> (TokenStream, TokenStream) {
        let private = self.private();
        let mut parts: Vec<(TokenStream, Span)> = Vec::new();
        match (&self.options.key, self.options.with_self) {
            (Some(key), _) => parts.push((own("chosen").to_token_stream(), hygienic(key.span()))),
            (None, with_self) => {
                parts.extend(with_self.map(|span| (quote_spanned!(span=> &self), span)));
                parts.extend(self.function.keys(self.options).map(
                    |Argument { name, ty, .. }| {
                        let span = hygienic(span_of(ty));
                        (quote_spanned!(span=> &#name), span)
                    },
                ));
            }
        }
        let (schema, key) = (own("schema"), own("key"));
        let schemas = parts.iter().map(|(part, span)| {
            quote_spanned!(*span=> let #schema = #schema.of(#private::schema_of(#part));)
        });
        let feeds =
            parts.iter().map(|(part, span)| quote_spanned!(*span=> #private::feed(#part, #key);));
        let schema = quote!(|#schema: #private::KeySchema| { #(#schemas)* #schema });
        (schema, quote!(|#key: &mut #private::KeyWriter<'_>| { #(#feeds)* }))
    }

    /// What is done with a call.
    fn finish(&self, way: Way, call: &Ident, form: &Ident, span: Span) -> TokenStream {
        let (private, function) = (self.private(), self.function);
        let (asynchronous, wait) = match function.is_async() {
            true => ("_async", Some(quote_spanned!(span=> .await))),
            false => ("", None),
        };
        let method = match (way, &function.gives) {
            (Way::Forget, _) => return quote_spanned!(span=> #call.forget()),
            (Way::Peek, _) => return quote_spanned!(span=> #call.peek()),
            (Way::Run, Gives::Iter(_)) => "iter".to_owned(),
            (Way::Run, Gives::Stream(_)) => "stream".to_owned(),
            (Way::Run, Gives::Value(_)) => format!("run{asynchronous}"),
            (Way::Refresh, Gives::Iter(_)) => "refresh_iter".to_owned(),
            (Way::Refresh, Gives::Stream(_)) => "refresh_stream".to_owned(),
            (Way::Refresh, Gives::Value(_)) => format!("refresh{asynchronous}"),
            (Way::Archived, _) => format!("archived{asynchronous}"),
        };
        let (method, compute) = (Ident::new(&method, span), self.compute());
        let result = quote_spanned!(span=> #call.#method(#compute)#wait);
        match (way, spelling(function.gives.stored())) {
            (Way::Archived, Spelling::Plain | Spelling::Unclear) => {
                quote_spanned!(span=> #private::infallible(#result, #form))
            }
            _ => result,
        }
    }

    /// A closure that runs the function as it was written.
    fn compute(&self) -> TokenStream {
        let function = self.function;
        let names: Vec<_> = function.arguments.iter().map(|argument| &argument.name).collect();
        let (turbofish, receiver) = (function.turbofish(), function.receiver.as_ref());
        let inner = match (&function.companion, function.is_method) {
            (Some(companion), false) => Some(quote!(#companion::uncached)),
            (Some(prefix), true) => {
                let uncached = self.member(Some(prefix), "uncached");
                Some(quote!(Self::#uncached))
            }
            (None, _) => None,
        };
        if let Some(inner) = inner {
            let receiver = receiver.map(|receiver| receiver.self_token).into_iter();
            return quote!(move || #inner #turbofish (#(#receiver,)* #(#names),*));
        }
        if !function.is_method {
            // A function of its own, so that it sees nothing of what is around it.
            let ItemFn { attrs, sig, block, .. } = &function.item;
            let lints = attrs.iter().filter(|attribute| is_lint(attribute));
            let mut signature = sig.clone();
            signature.ident = format_ident!("__uncached");
            return quote!({
                #(#lints)*
                #signature #block
                move || __uncached #turbofish (#(#names),*)
            });
        }
        self.closure()
    }

    fn closure(&self) -> TokenStream {
        let function = self.function;
        let (block, statements) = (&function.item.block, &function.item.block.stmts);
        let bindings =
            function.arguments.iter().filter_map(|Argument { name, pattern, .. }| {
                pattern.as_ref().map(|pattern| quote!(let #pattern = #name;))
            });
        let bindings = quote!(#(#bindings)*);
        match (&function.gives, function.is_async()) {
            (Gives::Value(ty), true) => {
                let (hint, value) = (own("hint"), own("value"));
                // The block's type, for what is inferred from it (`?`, `into`).
                quote!(move || async move {
                    if let ::core::option::Option::Some(#hint) = ::core::option::Option::None::<#ty> {
                        #[allow(unreachable_code)]
                        return #hint;
                    }
                    #bindings
                    #[allow(unused_braces, clippy::let_and_return)]
                    let #value: #ty = #block;
                    #value
                })
            }
            (Gives::Value(ty), false) => quote!(move || -> #ty { #bindings #(#statements)* }),
            (Gives::Iter(_) | Gives::Stream(_), _) => quote!(move || { #bindings #(#statements)* }),
        }
    }
}

/// A way to call a function.
#[derive(Clone, Copy)]
enum Way {
    Run,
    Archived,
    Peek,
    Forget,
    Refresh,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Run => "run",
            Way::Archived => "archived",
            Way::Peek => "peek",
            Way::Forget => "forget",
            Way::Refresh => "refresh",
        }
    }

    fn doc(self) -> &'static str {
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

    fn is_async(self) -> bool {
        matches!(self, Way::Run | Way::Archived | Way::Refresh)
    }
}

/// What the spelling of a type says about whether it is a `Result`.
enum Spelling {
    Plain,
    Result,
    /// It may be an alias.
    Unclear,
}

fn spelling(ty: &Type) -> Spelling {
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
