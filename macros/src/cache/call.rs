//! One call of a function that has a cache: its key, the way into the crate, and the closure that computes.

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
    fn cached_function_path(&self) -> TokenStream {
        let name = self.cached_function_name();
        match (&self.function.companion, self.function.is_method) {
            (None, _) => quote!(#name()),
            (Some(_), true) => quote!(Self::#name()),
            (Some(companion), false) => quote!(#companion::#name()),
        }
    }

    /// What has the generic parameters around a method in its type.
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

    /// The body of a method, as a closure in the outer one. Its arguments are taken apart in it, by the patterns that
    /// the user wrote, and its type is said, since a closure's is inferred and a function's is not.
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
