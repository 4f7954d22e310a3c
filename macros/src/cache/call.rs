//! One call of a function that has a cache: its key, the way into the crate, and the closure that computes.
//!
//! ```text
//! let function = f::__cached_function();
//! function.ready().await;                                        if the function and the way are async
//! let form = (&Probe::<Stored>::new()).__persist_cache_form();             a `Result`, or a value
//! let describes = (&form).__persist_cache_describes();                     by its schema, or by its type
//! let call = function.call(form, describes, &instance, schema, feed);      the key, borrowed
//! call.run(move || inner(arguments))                                       the arguments, moved
//! ```
//!
//! The order of the last two lines matters. The key is fed from references to the arguments, and is done when `call`
//! is there; then the arguments may move into the closure. So no argument is cloned, on a hit or a miss, and an
//! argument need not be `Clone`.
//!
//! On a hit the closure is dropped, and the arguments with it. It is made all the same: that is free but for the
//! moves.
//!
//! Each `let` has its own block where it imports traits, so that no method of theirs is in the scope of the user's
//! code. Their methods have long names for the same reason: a user's trait with a `form` for all types would be in
//! scope there (`more_shapes_of_functions` in `tests/attribute.rs`).

use super::way::{Spelling, Way, spelling};
use super::{Expansion, hygienic, is_lint, own};
use crate::function::{Argument, Gives, span_of};
use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens as _, format_ident, quote, quote_spanned};
use syn::ItemFn;
use syn::ext::IdentExt as _;
use syn::spanned::Spanned as _;

impl Expansion<'_> {
    /// The body of the outer function, or of another way to call it.
    ///
    /// All names in it are [`own`] ones, located at the type of the result: that is where the compiler tells that a
    /// result cannot be cached. `chosen` is an expression of the user's, evaluated once, in the scope of the outer
    /// function's arguments.
    pub(super) fn call(&self, way: Way) -> TokenStream {
        let (private, function) = (self.private(), self.function);
        let stored = function.gives.stored();
        let span = hygienic(span_of(stored));
        let at_type = |name| Ident::new(name, span);
        let (form, describes) = (at_type("form"), at_type("describes"));
        let (cached_function, call) = (at_type("cached_function"), at_type("call"));
        let at = self.cached_function_path();
        let open = (function.is_async() && way.is_async())
            .then(|| quote!(#cached_function.ready().await;));
        let witness = self.witness();
        let instance = function.instance(self.options, witness.as_ref());
        let chosen = self.options.key.as_ref().map(|key| {
            let chosen = own("chosen");
            quote!(let #chosen = &#key;)
        });
        let (schema, feed) = self.key();
        let (enter, cache) = self.enter(way, span);
        let finish = self.finish(way, &call, &form, span);
        quote_spanned! {span=>
            let #cached_function: &'static #private::CachedFunction = #at;
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
                #cached_function.#enter(#cache #form, #describes, &#instance, #schema, #feed)
            };
            #finish
        }
    }

    /// Where the function's static is.
    ///
    /// The path is that by which the body of any way reaches the static: within the function, through `Self`, or
    /// through the companion.
    fn cached_function_path(&self) -> TokenStream {
        let name = self.cached_function_name();
        match (&self.function.companion, self.function.is_method) {
            (None, _) => quote!(#name()),
            (Some(_), true) => quote!(Self::#name()),
            (Some(companion), false) => quote!(#companion::#name()),
        }
    }

    /// What has the generic parameters around a method in its type.
    ///
    /// A method without companions has a closure of its own made for it. With companions the ways are several
    /// functions, whose closures would be of several types, and so of several instances: there one function beside
    /// them makes it.
    fn witness(&self) -> Option<TokenStream> {
        let private = self.private();
        match (&self.function.companion, self.function.is_method) {
            (_, false) => None,
            (None, true) => Some(quote!(#private::type_of(&(|| {})))),
            (Some(prefix), true) => {
                let witness = format_ident!("__{}_witness", prefix.unraw());
                Some(quote!(#private::type_of(&Self::#witness())))
            }
        }
    }

    /// The method of the static that begins a call, and its first argument: what gives the cache, and how long that may
    /// wait.
    ///
    /// `cache_at_once` is for a function that returns a stream: it is no async function, so it cannot await `ready`,
    /// but is called in one. Its refresh may wait: without the open file its result would not be stored.
    fn enter(&self, way: Way, span: Span) -> (Ident, Option<TokenStream>) {
        let is_made_in_a_poll = matches!(self.function.gives, Gives::Stream(_))
            && matches!(way, Way::Run)
            && !self.function.is_async();
        // Without `ready` the call itself must not wait.
        let cache = Ident::new(if is_made_in_a_poll { "cache_at_once" } else { "cache" }, span);
        let private = self.private();
        match self.function.gives {
            Gives::Value(_) => (Ident::new("call", span), None),
            Gives::Iter(_) | Gives::Stream(_) => {
                let cache = quote_spanned!(span=> #private::CachedFunction::#cache,);
                (Ident::new("items", span), Some(cache))
            }
        }
    }

    /// The key, as two closures: one says its schema, the other feeds it. An argument that is none is
    /// told of at its type.
    ///
    /// The parts are fed in the order of the arguments, `self` first. Each is handed over as `&argument` to a generic
    /// function with a bound, and not as a method call: so a type that is no key is told of by the bound's own text,
    /// and no method of the user's can be meant instead. The schema is asked of the same references, since an `impl
    /// Trait` argument has a type without a name.
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
    ///
    /// `Run` of a value has two methods, for values and for futures; of items it has `iter` and `stream`. Where
    /// reading in place cannot fail, as far as the spelling tells, the result is unwrapped by `infallible`.
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
    ///
    /// There are three forms of it, one for each place where the body can be: elsewhere by a path, in a function
    /// within the outer one, or in the closure itself.
    ///
    /// A function leaves the body all that it may rely on: its lifetimes, its `impl Trait` arguments, and that no
    /// local of the outer function can be named. A closure does so as far as it can: `return` and `?` leave it and
    /// nothing else.
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
            // The body is here, so its lints are, too.
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

    /// The body of a method, as a closure in the outer one. Its arguments are taken apart in it, by the patterns that
    /// the user wrote, and its type is said, since a closure's is inferred and a function's is not.
    ///
    /// An iterator's closure says no type, as `impl Trait` can be none of a closure's.
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
                // An async block has no place for its type: a `return` that is never reached says it.
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
