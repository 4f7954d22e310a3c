//! The static of a function: what it declares to the crate, and the hash of its code.
//!
//! ```text
//! fn __cached_function() -> &'static CachedFunction {
//!     enum __Here {}                      its type_name says in which function or impl this stands
//!     static FUNCTION: CachedFunction = CachedFunction::new(Declaration {
//!         here, place, tail, module, at   what tells the function from others
//!         package, folder, executable     what tells its crate from others
//!         version: || ..                  the hash of its code, or the option
//!         cache, root, path, ..           Some(|| expression), or None
//!     });
//!     &FUNCTION
//! }
//! ```
//!
//! A static has to be a constant, and the options may be any expressions. So each expression stands in a closure
//! without captures, which is a function pointer, and is evaluated later: the options when the function's cache is
//! opened, `version` then and once more for each instance. `here` and `place` are functions of the standard library
//! that are not called yet.
//!
//! The static stands in a function of its own, since the other ways to call the function use it as well. It is one
//! for all instances of a generic function, as every static is; `Instance` tells those apart.

use super::{Expansion, is_lint};
use crate::code::Code;
use crate::options::Options;
use crate::tracked::constant;
use proc_macro2::{Ident, TokenStream};
use quote::{format_ident, quote};
use syn::ItemFn;
use syn::ext::IdentExt as _;

impl Expansion<'_> {
    /// What the function is called that has the static.
    ///
    /// A method's companions stand beside it in one `impl` with those of other methods: there the name has the
    /// prefix.
    pub(super) fn cached_function_name(&self) -> Ident {
        match (&self.function.companion, self.function.is_method) {
            (Some(prefix), true) => format_ident!("__{}_cached_function", prefix.unraw()),
            _ => format_ident!("__cached_function"),
        }
    }

    /// The function in which the function's static is, inside `parent` or beside the function.
    ///
    /// `parent` is what the function stands in: the companion of a free function, or the function itself if it has
    /// none. Then `type_name` of `__Here` ends with `::parent::name::__Here`, which is `tail`; the crate cuts it off
    /// to know the module or type that the function is in. Beside a method there is nothing between.
    pub(super) fn cached_function(&self, parent: Option<&Ident>) -> TokenStream {
        let (private, name) = (self.private(), self.cached_function_name());
        let function = self.function.name().unraw().to_string();
        let parent = parent.map_or_else(String::new, |parent| format!("::{}", parent.unraw()));
        let tail = format!("{parent}::{name}::__Here");
        let (version, options) = (self.version(), self.declared_options());
        quote! {
            #[doc(hidden)]
            #[allow(dead_code, clippy::all, clippy::pedantic)]
            fn #name() -> &'static #private::CachedFunction {
                enum __Here {}
                static FUNCTION: #private::CachedFunction = #private::CachedFunction::new(#private::Declaration {
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
                    #options
                });
                &FUNCTION
            }
        }
    }

    /// An expression for the version of the function's code.
    ///
    /// With an option, `version` and its text; else `code` and the hash in hexadecimal. The two words keep a version
    /// `1` from ever being taken for a hash. The hash is a constant, so that a circle of `deps` is found out in the
    /// build.
    fn version(&self) -> TokenStream {
        if let Some(version) = &self.options.version {
            return quote!(::std::format!("version {}", #version));
        }
        let code = self.code();
        quote!({
            const CODE: u128 = #code;
            ::std::format!("code {:032x}", CODE)
        })
    }

    /// The fields of the declaration that the options of the attribute say. Each is an expression of the user's,
    /// evaluated when the function is first called.
    ///
    /// `cache` is the option `name`: the name of the cache, beside `name`, which is the function's. Texts and paths
    /// are converted with `From`, so that `&str`, `String`, `&Path` and `PathBuf` all will do.
    fn declared_options(&self) -> TokenStream {
        let Options { name, root, path, expiry, claim_timeout, record_limit, by_program, .. } =
            self.options;
        let option = |value: Option<TokenStream>| match value {
            Some(value) => quote!(::core::option::Option::Some(|| #value)),
            None => quote!(::core::option::Option::None),
        };
        let text = |value: &syn::Expr| quote!(::std::string::String::from(#value));
        let file = |value: &syn::Expr| quote!(::std::path::PathBuf::from(#value));
        let cache = option(name.as_ref().map(text));
        let (root, path) = (option(root.as_ref().map(file)), option(path.as_ref().map(file)));
        let (expiry, claim_timeout, record_limit) =
            (option(expiry.clone()), option(claim_timeout.clone()), option(record_limit.clone()));
        quote! {
            cache: #cache,
            root: #root,
            path: #path,
            expiry: #expiry,
            claim_timeout: #claim_timeout,
            record_limit: #record_limit,
            by_program: #by_program,
        }
    }

    /// An expression for the hash of the function's code and of its `deps`. Attributes that do not change what it
    /// computes do not count, nor do comments and layout, which are no tokens.
    ///
    /// It is evaluated by the compiler, in [`constant`], once for the version and once for the companion's `CODE`.
    ///
    /// A version of the user's stands in for the code: an edit of the function is then no miss, on the user's word.
    /// The version is hashed as the user spelled it, so that `CODE` of those that depend on the function changes with
    /// it; a version that is a constant's name counts by that name there. In the function's own scope its value
    /// counts.
    pub(super) fn code(&self) -> TokenStream {
        let ItemFn { attrs, sig, block, .. } = &self.function.item;
        let mut code = Code::new();
        match &self.options.version {
            // It stands in for the code, to those who depend on this function too.
            Some(version) => code.feed(quote!(version = #version)),
            None => {
                // Attributes that say nothing of what is computed do not count.
                // Lints, and these. Any other attribute may change what is computed: it may be a macro.
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
}
