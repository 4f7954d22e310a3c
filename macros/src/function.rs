//! A function under `#[cache]`: what of it can be kept, and the parts that its expansion is made of.
//!
//! All that is wrong with a function is told at once, each at its place, and says what to write instead: see
//! `tests/ui`. What is refused is what a hit could not do, since it does not run the function: change an argument,
//! borrow from it, return a reference.
//!
//! Macros see no types, only how they are spelled. So whether a result is a `Result`, under an alias for instance,
//! is not decided here but by the compiler, in what the expansion calls (`attribute/probe.rs`).
//!
//! ```text
//! #[cache(ignore(log))]
//! fn f<T>(&self, (a, b): (u8, T), mut n: u8, log: bool) -> Result<u8, E>
//!         receiver                                         gives: Value(Result<u8, E>)
//! arguments   name        pattern    in the key
//!             argument_0  (a, b)     yes: as one value, before it is taken apart
//!             n           mut n      yes
//!             log         none       no
//! ```
//!
//! An argument is a name for the outer function, which has to mention it twice: once for the key, once to pass it on.
//! A pattern is no such name, and a `mut` there would be unused. So the outer function's arguments are plain names,
//! and the pattern goes where the body is: into the inner function, which is as it was written, or in front of a
//! method's body.
//!
//! Where the body of a method goes decides how far it is understood here. Nothing but functions can stand in an
//! `impl`, and none but its own in the `impl` of a trait: there is no place for an empty enum, and none for a second
//! function. So what looks like a method keeps its body, as a closure, unless companions are asked for by name.

use crate::options::{Companion, Options};
use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens as _, quote};
use syn::ext::IdentExt as _;
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};
use syn::{
    Attribute, Error, FnArg, GenericArgument, GenericParam, Ident, ItemFn, Pat, PatIdent,
    PathArguments, Receiver, ReceiverKind, Result, ReturnType, Signature, Type, TypeImplTrait,
    TypeParamBound, TypeReference, Visibility, parse_quote,
};

/// What a function gives.
///
/// It decides which methods of the crate's the expansion calls, and which ways there are (`cache/way.rs`).
pub(crate) enum Gives {
    /// A value of this type.
    Value(Type),
    /// An iterator over items of this type.
    Iter(Type),
    /// A stream of items of this type.
    Stream(Type),
}

impl Gives {
    /// The type that is stored, or a `Result` of it.
    pub(crate) fn stored(&self) -> &Type {
        match self {
            Gives::Value(ty) | Gives::Iter(ty) | Gives::Stream(ty) => ty,
        }
    }
}

/// An argument other than `self`.
///
/// `name` is the user's where the argument is just a name, `mut` or not. Else it is `argument_0` or the like, with a
/// span that the user's names do not meet: an argument that a user calls `argument_0` is another.
pub(crate) struct Argument {
    /// What the outer function calls it.
    pub(crate) name: Ident,
    /// What the body calls it, if that is not just its name.
    pub(crate) pattern: Option<Pat>,
    pub(crate) ty: Type,
    pub(crate) attributes: Vec<Attribute>,
}

impl Argument {
    /// Whether the user can speak of it by this name.
    ///
    /// A name that the macro gave is none that can be written in `ignore(..)`, nor is one that stands within a
    /// pattern: a part of an argument cannot be left out of the key by itself.
    fn is_called(&self, name: &Ident) -> bool {
        let is_mut =
            |pattern: &Pat| matches!(pattern, Pat::Ident(pattern) if pattern.subpat.is_none());
        self.name.unraw() == name.unraw() && self.pattern.as_ref().is_none_or(is_mut)
    }
}

/// A function, taken apart.
pub(crate) struct Function {
    pub(crate) item: ItemFn,
    pub(crate) receiver: Option<Receiver>,
    pub(crate) arguments: Vec<Argument>,
    pub(crate) gives: Gives,
    /// Whether it is a method, or an associated function.
    pub(crate) is_method: bool,
    /// What its companion, or those of a method, are called.
    pub(crate) companion: Option<Ident>,
}

impl Function {
    /// Takes a function apart, or says all that is wrong with it.
    ///
    /// It is taken for a method if it has a receiver, says `Self`, or the option `method` says so: an associated
    /// function that does neither looks like any other.
    ///
    /// The errors are those of the signature first, and then those of the options that name something in it.
    pub(crate) fn new(item: ItemFn, options: &Options) -> Result<Function> {
        let mut errors = Errors(None);
        refuse_modifiers(&item.sig, &mut errors);
        let receiver = item.sig.receiver().cloned();
        let arguments = arguments(&item.sig, &mut errors);
        let gives = errors.take(gives(&item.sig));
        let is_method = receiver.is_some() || options.method || mentions_self(&item);
        if let (Some(span), None) = (options.with_self, &receiver) {
            errors.add(Error::new(span, "`with_self` is for methods; this function has no `self`"));
        }
        for name in &options.ignore {
            if name == "self" {
                let text = "`self` is no part of the key; leave it out here";
                errors.add(Error::new(name.span(), text));
            } else if !arguments.iter().any(|argument| argument.is_called(name)) {
                let text = format!("no argument is called `{name}`");
                errors.add(Error::new(name.span(), text));
            }
        }
        let companion = match (&options.companion, is_method) {
            (Companion::Named(name), _) => Some(name.clone()),
            (Companion::Default, false) => Some(item.sig.ident.clone()),
            (Companion::None, _) | (Companion::Default, true) => None,
        };
        if let (Some(name), false) = (&companion, is_method) {
            refuse_primitive(name, &mut errors);
        }
        // Without `gives` there is an error: `take` has added it. With an error there is no function, even if all
        // parts are there.
        match (errors.0, gives) {
            (None, Some(gives)) => {
                Ok(Function { item, receiver, arguments, gives, is_method, companion })
            }
            (error, _) => Err(error.expect("what is missing was refused")),
        }
    }

    /// The function's name, which is its companion's too unless an option says another.
    pub(crate) fn name(&self) -> &Ident {
        &self.item.sig.ident
    }

    pub(crate) fn is_async(&self) -> bool {
        self.item.sig.asyncness.is_some()
    }

    /// The function's visibility, which is that of its companion and of all that is in it.
    pub(crate) fn visibility(&self) -> &Visibility {
        &self.item.vis
    }

    /// The function's signature, its arguments called as the outer function calls them. A body that is in
    /// the function itself keeps its `mut self`.
    ///
    /// `has_body` says whether the result is the signature of a function in which the user's body stands. In one that
    /// only passes its arguments on, `mut self` would be an unused `mut`; the inner function, or the closure, has it.
    pub(crate) fn signature(&self, has_body: bool) -> Signature {
        let mut signature = self.item.sig.clone();
        let typed = signature.inputs.iter_mut().filter_map(|input| match input {
            FnArg::Typed(typed) => Some(typed),
            FnArg::Receiver(receiver) => {
                if !has_body {
                    receiver.mutability = None;
                }
                None
            }
        });
        // `zip` asks the signature's inputs first. So it has passed the receiver, and taken its `mut`, even where
        // there is no other argument.
        for (typed, argument) in typed.zip(&self.arguments) {
            let (name, attributes) = (&argument.name, &argument.attributes);
            typed.attrs = attributes.clone();
            typed.pat = parse_quote!(#name);
        }
        signature
    }

    /// The arguments that are part of the key.
    pub(crate) fn keys(&self, options: &Options) -> impl Iterator<Item = &Argument> {
        let is_ignored =
            |argument: &Argument| options.ignore.iter().any(|name| argument.is_called(name));
        self.arguments.iter().filter(move |argument| !is_ignored(argument))
    }

    /// The generic arguments of this instance, to call another function with the same parameters.
    ///
    /// Lifetimes are left out: some are bound by the call and may not be named there, and all of them are inferred.
    /// Without a turbofish a parameter that only the body mentions would be inferred to nothing.
    pub(crate) fn turbofish(&self) -> TokenStream {
        let parameters = self.item.sig.generics.params.iter();
        let arguments: Vec<&Ident> = parameters
            .filter_map(|parameter| match parameter {
                GenericParam::Type(parameter) => Some(&parameter.ident),
                GenericParam::Const(parameter) => Some(&parameter.ident),
                GenericParam::Lifetime(_) => None,
            })
            .collect();
        if arguments.is_empty() { TokenStream::new() } else { quote!(::<#(#arguments),*>) }
    }

    /// An expression for the instance of the generic parameters, those that have no name included. Those
    /// around a method only the type of a closure there has, `witness`.
    ///
    /// What tells instances apart at run time is a tuple of a `PhantomData` for each type parameter, in the type of
    /// which they all are; the crate takes its `TypeId`, with lifetimes erased. An `impl Trait` argument has no name
    /// that the tuple could mention, so `type_of` takes its type from the argument itself. Constants are numbers,
    /// `bool`s or `char`s, all of which `as u128` takes.
    ///
    /// Around a method there may be parameters of an `impl` that the macro does not see at all. A closure in the
    /// method has them in its type, whether it uses them or not. That is the `witness`, and `Self`'s name stands
    /// beside it: `parameters_of_the_implementation` and `trait_methods_of_each_type_are_their_own` in
    /// `tests/attribute.rs` show both.
    pub(crate) fn instance(&self, options: &Options, witness: Option<&TokenStream>) -> TokenStream {
        let (mut types, mut consts) = (Vec::new(), Vec::new());
        for parameter in &self.item.sig.generics.params {
            match parameter {
                GenericParam::Type(parameter) => {
                    let ident = &parameter.ident;
                    types.push(quote!(::core::marker::PhantomData::<#ident>));
                }
                GenericParam::Const(parameter) => {
                    let ident = &parameter.ident;
                    consts.push(quote!(#ident as u128));
                }
                GenericParam::Lifetime(_) => {}
            }
        }
        let private = {
            let crate_path = &options.crate_path;
            quote!(#crate_path::__private)
        };
        for argument in &self.arguments {
            let mut finder = ImplFinder(false);
            finder.visit_type(&argument.ty);
            if finder.0 {
                let name = &argument.name;
                types.push(quote!(#private::type_of(&#name)));
            }
        }
        let (types, consts) = (quote!(&(#(#types,)*)), quote!(&[#(#consts),*]));
        match witness {
            None => quote!(#private::Instance::new(#types, #consts)),
            Some(witness) => quote! {
                #private::Instance::within(
                    &#witness,
                    ::core::any::type_name::<Self>,
                    #types,
                    #consts,
                )
            },
        }
    }
}

/// Errors found so far: all of them are told at once.
struct Errors(Option<Error>);

impl Errors {
    /// Adds one, behind those that were found before.
    fn add(&mut self, error: Error) {
        match &mut self.0 {
            Some(errors) => errors.combine(error),
            none => *none = Some(error),
        }
    }

    /// The value, or `None` and its error added.
    fn take<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.add(error)).ok()
    }
}

/// Refuses what a function may not say of itself: `const`, `unsafe`, another ABI, variadic arguments, `&mut self`.
///
/// A hit does not run the function. So a `const fn` that is evaluated by the compiler, an `unsafe fn` whose caller
/// vouches for what it will do, and `&mut self` make no sense of it; another ABI and variadic arguments cannot be
/// passed on. `self: &mut T` and `self: Pin<&mut Self>` are found by their types.
fn refuse_modifiers(signature: &Signature, errors: &mut Errors) {
    let mut refuse = |tokens: TokenStream, text: &str| {
        if !tokens.is_empty() {
            errors.add(Error::new_spanned(tokens, text));
        }
    };
    let is_const = signature.constness.to_token_stream();
    refuse(is_const, "a `const fn` runs when it is compiled, where there is no cache");
    let is_unsafe = signature.safety.to_token_stream();
    refuse(is_unsafe, "wrap the call in a safe function, and cache that");
    let abi = signature.abi.to_token_stream();
    refuse(abi, "wrap the call in a function of Rust's own ABI, and cache that");
    refuse(signature.variadic.to_token_stream(), "variadic arguments cannot be a key");
    let mutable = match signature.receiver().map(|receiver| &receiver.kind) {
        Some(ReceiverKind::Reference(_, _, mutable)) => mutable.map(|mutable| mutable.span),
        Some(ReceiverKind::Typed(_, ty)) => mutable_reference(ty),
        _ => None,
    };
    if let Some(span) = mutable {
        let text =
            "a cached method does not run on a hit, so it cannot change `self`; take `&self`";
        errors.add(Error::new(span, text));
    }
}

/// The `mut` of a reference that a type is or holds.
fn mutable_reference(ty: &Type) -> Option<Span> {
    struct Finder(Option<Span>);
    impl<'a> Visit<'a> for Finder {
        fn visit_type_reference(&mut self, reference: &'a TypeReference) {
            self.0 = self.0.or(reference.mutability.map(|mutable| mutable.span));
            visit::visit_type_reference(self, reference);
        }
    }
    let mut finder = Finder(None);
    finder.visit_type(ty);
    finder.0
}

/// The arguments but for `self`. One that is a pattern gets a name for the outer function, and is taken apart where
/// the function runs.
///
/// One that is refused stays in the list, so that `ignore` of its name is no second error.
fn arguments(signature: &Signature, errors: &mut Errors) -> Vec<Argument> {
    let mut arguments = Vec::new();
    for input in &signature.inputs {
        let FnArg::Typed(typed) = input else { continue };
        if let Some(mutable) = mutable_reference(&typed.ty) {
            let text = "a cached function does not run on a hit, so it cannot change its arguments; \
                take the value or `&`, and return what it makes";
            errors.add(Error::new(mutable, text));
        }
        let (name, pattern) = match &*typed.pat {
            Pat::Ident(PatIdent { by_ref: None, mutability, ident, subpat: None, .. }) => {
                (ident.clone(), mutability.is_some().then(|| (*typed.pat).clone()))
            }
            pattern => {
                let name = format!("argument_{}", arguments.len());
                (Ident::new(&name, Span::mixed_site()), Some(pattern.clone()))
            }
        };
        let (ty, attributes) = ((*typed.ty).clone(), typed.attrs.clone());
        arguments.push(Argument { name, pattern, ty, attributes });
    }
    arguments
}

/// What the function gives, by how its result is spelled.
///
/// References are refused, since a result outlives the call that computed it. One within a type, as in `Vec<&str>`,
/// is found by the bound `CacheValue`.
fn gives(signature: &Signature) -> Result<Gives> {
    let ReturnType::Type(_, ty) = &signature.output else {
        return Ok(Gives::Value(parse_quote!(())));
    };
    match peel(ty) {
        Type::Reference(reference) => {
            let text = "a cached result is owned: return `String` instead of `&str`, `Vec<T>` \
                instead of `&[T]`, `T` instead of `&T`";
            Err(Error::new_spanned(reference.and_token, text))
        }
        Type::Never(never) => Err(Error::new_spanned(never, "there is no result to keep")),
        Type::ImplTrait(found) => items(found, signature.asyncness.is_some()),
        _ => Ok(Gives::Value((**ty).clone())),
    }
}

/// A type without the brackets that a macro puts around it, or a user.
pub(crate) fn peel(ty: &Type) -> &Type {
    match ty {
        Type::Group(group) => peel(&group.elem),
        Type::Paren(paren) => peel(&paren.elem),
        ty => ty,
    }
}

/// The items of an `impl Iterator` or `impl Stream`.
///
/// `Iterator` and `Stream` are known by the last segment of their path, since that is all that a macro sees. `Send`
/// and the like, and lifetimes, may stand beside them. Anything else, `ExactSizeIterator` for one, is a promise that
/// the iterator of a hit could not keep.
///
/// An `async fn` that returns either is refused: it would have to be awaited before the first item could be looked
/// for.
fn items(found: &TypeImplTrait, is_async: bool) -> Result<Gives> {
    const ALLOWED: [&str; 4] = ["Send", "Sync", "Unpin", "Sized"];
    let mut gives = None;
    for bound in &found.bounds {
        let TypeParamBound::Trait(bound) = bound else { continue };
        let last = bound.path.segments.last().expect("a path has a segment");
        let (is_iter, is_stream) = (last.ident == "Iterator", last.ident == "Stream");
        if is_iter || is_stream {
            let item = item_of(&last.arguments).ok_or_else(|| {
                Error::new_spanned(
                    last,
                    format!("say the type of the items: `{}<Item = T>`", last.ident),
                )
            })?;
            gives = Some(if is_iter { Gives::Iter(item) } else { Gives::Stream(item) });
        } else if !ALLOWED.iter().any(|allowed| last.ident == allowed) {
            let text = "a cached iterator is an `Iterator` and no more, a cached stream a `Stream`: \
                items come from the file one by one; leave this out, or return a `Vec`";
            return Err(Error::new_spanned(bound, text));
        }
    }
    let text = "of hidden types only `impl Iterator<Item = T>` and `impl Stream<Item = T>` can be \
        cached; name the type that is returned";
    let gives = gives.ok_or_else(|| Error::new_spanned(found, text))?;
    if is_async {
        let text =
            "an async function gives a value; return `impl Stream<Item = T>` without `async`";
        return Err(Error::new_spanned(found, text));
    }
    match gives.stored() {
        Type::Reference(reference) => {
            let text = "cached items are owned: `String` instead of `&str`, `T` instead of `&T`";
            Err(Error::new_spanned(reference.and_token, text))
        }
        _ => Ok(gives),
    }
}

/// The `T` of `Iterator<Item = T>`.
fn item_of(arguments: &PathArguments) -> Option<Type> {
    let PathArguments::AngleBracketed(arguments) = arguments else { return None };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::AssocType(item) if item.ident == "Item" => Some(item.ty.clone()),
        _ => None,
    })
}

/// Whether the function speaks of `Self`, and not just an item within it of its own.
///
/// The tokens of macro calls are searched one by one, since `syn` does not know what they will be. Items within the
/// body are passed over: their `Self` is another (`with_an_item_inside` in `tests/attribute.rs`). A bare `&self`
/// mentions no `Self` for `syn`, so the caller asks for a receiver as well.
fn mentions_self(item: &ItemFn) -> bool {
    struct Finder(bool);
    impl<'a> Visit<'a> for Finder {
        fn visit_ident(&mut self, ident: &'a Ident) {
            self.0 |= ident == "Self";
        }
        fn visit_macro(&mut self, found: &'a syn::Macro) {
            self.0 |= search(found.tokens.clone());
        }
        fn visit_item(&mut self, _item: &'a syn::Item) {}
    }
    fn search(tokens: TokenStream) -> bool {
        tokens.into_iter().any(|tree| match tree {
            TokenTree::Ident(ident) => ident == "Self",
            TokenTree::Group(group) => search(group.stream()),
            TokenTree::Punct(_) | TokenTree::Literal(_) => false,
        })
    }
    let mut finder = Finder(false);
    finder.visit_signature(&item.sig);
    finder.visit_block(&item.block);
    finder.0
}

/// A companion called `str` would take the place of the type in its module.
///
/// A module finds the types that it has before the language's own, without a word of the compiler's. Every `str`
/// behind such a function would mean the companion.
fn refuse_primitive(name: &Ident, errors: &mut Errors) {
    const PRIMITIVES: [&str; 17] = [
        "bool", "char", "str", "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32",
        "i64", "i128", "isize", "f32", "f64",
    ];
    if PRIMITIVES.iter().any(|primitive| name == primitive) {
        let text = format!(
            "the companion of `{name}` would take the place of the type `{name}` here; give it \
             another name with `companion = ..`, or `companion = none`"
        );
        errors.add(Error::new(name.span(), text));
    }
}

/// Finds an `impl Trait` in an argument's type: a generic parameter without a name, which is known by the argument's
/// value.
struct ImplFinder(bool);

impl<'a> Visit<'a> for ImplFinder {
    fn visit_type_impl_trait(&mut self, found: &'a TypeImplTrait) {
        self.0 = true;
        visit::visit_type_impl_trait(self, found);
    }
}

/// The place of a type, for errors about it.
///
/// `hygienic` gives this place to tokens of the expansion's own, so that an error of a trait bound is told at the
/// user's type and says nothing of names that the user has not written.
pub(crate) fn span_of(ty: &Type) -> Span {
    ty.span()
}
