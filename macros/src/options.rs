//! What stands in the brackets of `#[cache(..)]`.
//!
//! ```text
//! #[cache(name = "sizes", expiry = "30d", ignore(verbose), with_self)]
//!         |               |               |                '-- a word: it is there or not
//!         |               |               '------------------- a list of names, or of paths
//!         |               '----------------------------------- a text that is read now, or any expression
//!         '--------------------------------------------------- any expression, evaluated at the first call
//! ```
//!
//! Options are read in two steps: each by itself ([`Options::take`]), and then all against each other
//! ([`refuse_contradictions`]). Options that would mean nothing together are refused rather than ranked: of `path`
//! and `name`, whichever won, the other would look as if it did something.
//!
//! One error ends the reading, unlike in [`function`](crate::function), where all are collected: after a value that
//! could not be read, it is not known where the next option begins.

use crate::code::Code;
use proc_macro2::{Span, TokenStream};
use quote::{ToTokens as _, quote};
use std::collections::HashMap;
use syn::ext::IdentExt as _;
use syn::meta::ParseNestedMeta;
use syn::parse::Parser as _;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned as _;
use syn::{Error, Expr, ExprLit, Ident, Lit, Path, Result, Token, parenthesized, parse_quote};

/// How the companion of a function is called.
pub(crate) enum Companion {
    /// As the function is; a method has none.
    Default,
    None,
    Named(Ident),
}

/// The options of one function.
///
/// `#[tracked]` uses two of the fields, `crate_path` and `deps`; the others are then as they are by default. An
/// expression is the user's, and is put into the expansion with the place it came from, so that an error in it is
/// told there.
pub(crate) struct Options {
    /// The path of `persist-cache`, wherever its user has it.
    pub(crate) crate_path: Path,
    /// Where the file is: a name in a root, or a path. Without either, the function's own path is the name.
    pub(crate) name: Option<Expr>,
    pub(crate) root: Option<Expr>,
    pub(crate) path: Option<Expr>,
    /// An expression for an `Option<Duration>`.
    pub(crate) expiry: Option<TokenStream>,
    /// An expression for a `Duration`.
    pub(crate) claim_timeout: Option<TokenStream>,
    /// An expression for a `u64`.
    pub(crate) record_limit: Option<TokenStream>,
    /// Stands in the place of the code's hash. Anything that can be displayed.
    pub(crate) version: Option<Expr>,
    /// Whether the program as built counts as code.
    pub(crate) by_program: bool,
    /// What the key is made of: all arguments but `ignore`, `self` besides if `with_self` is there, or `key` alone.
    /// `with_self` is kept as its place, for the error on a function that has no `self`.
    pub(crate) ignore: Vec<Ident>,
    pub(crate) key: Option<Expr>,
    pub(crate) with_self: Option<Span>,
    /// Whether the function is an associated one, where its tokens do not show it.
    pub(crate) method: bool,
    pub(crate) companion: Companion,
    /// Items whose `CODE` counts as this one's.
    pub(crate) deps: Vec<Path>,
}

/// The options of `#[cache]`...
///
/// The order is that in which the error about an unknown option lists them.
pub(crate) const OF_CACHE: [&str; 15] = [
    "name",
    "root",
    "path",
    "expiry",
    "version",
    "code",
    "deps",
    "ignore",
    "key",
    "with_self",
    "method",
    "companion",
    "claim_timeout",
    "record_limit",
    "crate",
];
/// ...and of `#[tracked]`.
pub(crate) const OF_TRACKED: [&str; 2] = ["deps", "crate"];

impl Options {
    /// Reads options, of which only the `known` ones may be there.
    ///
    /// An unknown option, one that is given twice, a value that cannot be read, and two options that contradict each
    /// other are errors. `given` remembers the place of each, for the error about two.
    pub(crate) fn parse(tokens: TokenStream, known: &[&str]) -> Result<Options> {
        let mut options = Options {
            crate_path: parse_quote!(::persist_cache),
            name: None,
            root: None,
            path: None,
            expiry: None,
            claim_timeout: None,
            record_limit: None,
            version: None,
            by_program: false,
            ignore: Vec::new(),
            key: None,
            with_self: None,
            method: false,
            companion: Companion::Default,
            deps: Vec::new(),
        };
        let mut given: HashMap<String, Span> = HashMap::new();
        let parser = syn::meta::parser(|meta| {
            // `r#crate` is `crate`; `syn` takes keywords as names here, since options are no expressions.
            let name = meta.path.require_ident()?.unraw().to_string();
            if !known.contains(&&*name) {
                let known = known.join("`, `");
                return Err(meta.error(format!("there is no option `{name}`; there are `{known}`")));
            }
            if given.insert(name.clone(), meta.path.span()).is_some() {
                return Err(meta.error(format!("`{name}` is given twice")));
            }
            options.take(&name, &meta)
        });
        parser.parse2(tokens)?;
        refuse_contradictions(&given)?;
        Ok(options)
    }

    /// Reads the value of one option, whose name is known. What can be wrong with a value alone is told here; what
    /// two options say against each other by [`refuse_contradictions`].
    ///
    /// `name` must be one of those that `parse` was given: any other is a bug of this file, and a panic of the
    /// compiler.
    fn take(&mut self, name: &str, meta: &ParseNestedMeta<'_>) -> Result<()> {
        let value = || meta.value()?.parse::<Expr>();
        match name {
            "crate" => self.crate_path = meta.value()?.call(Path::parse_mod_style)?,
            "name" => self.name = Some(value()?),
            "root" => self.root = Some(value()?),
            "path" => self.path = Some(value()?),
            "expiry" => {
                let expiry = duration(&value()?)?;
                self.expiry =
                    // An expression may be a `Duration` or an `Option<Duration>`: `Into` takes either.
                    Some(quote!(::core::convert::Into::<::core::option::Option<_>>::into(#expiry)));
            }
            "claim_timeout" => self.claim_timeout = Some(duration(&value()?)?),
            "record_limit" => self.record_limit = Some(bytes(&value()?)?),
            "version" => self.version = Some(value()?),
            "code" => self.by_program = program(&value()?)?,
            "key" => self.key = Some(value()?),
            "ignore" => self.ignore = list(meta, Ident::parse_any)?,
            "deps" => self.deps = list(meta, Path::parse_mod_style)?,
            "with_self" => self.with_self = Some(meta.path.span()),
            "method" => self.method = true,
            "companion" => {
                let name = meta.value()?.call(Ident::parse_any)?;
                self.companion =
                    if name == "none" { Companion::None } else { Companion::Named(name) };
            }
            other => unreachable!("`{other}` is known"),
        }
        Ok(())
    }

    /// Feeds what decides which calls are the same.
    ///
    /// With another choice of arguments, a function answers other questions under the same keys. So these three are
    /// fed behind the code, also where a `version` stands in for that. The other options change where results lie,
    /// and for how long, and not what they are: they can be edited without losing an entry.
    pub(crate) fn feed(&self, code: &mut Code) {
        let Options { ignore, key, with_self, .. } = self;
        let with_self = with_self.is_some();
        code.feed(quote!(#(#ignore)*; #key; #with_self));
    }
}

/// The items in the brackets behind an option's name, with commas between them and, if one likes, behind the last.
fn list<T>(
    meta: &ParseNestedMeta<'_>,
    parse: fn(syn::parse::ParseStream<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let content;
    parenthesized!(content in meta.input);
    let items = Punctuated::<T, Token![,]>::parse_terminated_with(&content, parse)?;
    Ok(items.into_iter().collect())
}

/// Pairs of options that say different things about one, and what to do about it.
const CONTRADICTIONS: [(&str, &str, &str); 8] = [
    ("path", "name", "`path` names the file itself, so `name` has no use; leave one out"),
    ("path", "root", "`path` names the file itself, so `root` has no use; leave one out"),
    ("key", "ignore", "`key` is all of the key, so nothing is left to ignore; leave one out"),
    ("key", "with_self", "`key` is all of the key; put `self` into it instead of `with_self`"),
    ("version", "deps", "`version` stands in for all code, that of `deps` too; leave one out"),
    ("code", "version", "the program is all code, and `version` stands in for code; leave one out"),
    ("code", "deps", "the program is all code, that of `deps` too; leave one out"),
    ("method", "with_self", "`method` is for functions without `self`; leave one out"),
];

/// Tells the first contradiction of the table, at the second option of its pair.
fn refuse_contradictions(given: &HashMap<String, Span>) -> Result<()> {
    for (one, other, text) in CONTRADICTIONS {
        if let (Some(_), Some(span)) = (given.get(one), given.get(other)) {
            return Err(Error::new(*span, text));
        }
    }
    Ok(())
}

/// What counts as code, which can be one thing alone: the program.
fn program(value: &Expr) -> Result<bool> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) if text.value() == "program" => Ok(true),
        _ => {
            let text = "`code = \"program\"` makes the program as built count as the function's code; \
                        without it that of the function and of its `deps` does";
            Err(Error::new(value.span(), text))
        }
    }
}

/// An expression for a duration: any, or a literal like `"30d"`, which is read now.
///
/// A literal is read by the macro, so that a wrong one is an error of the build, at its place, and costs nothing when
/// the program runs. A number is refused, since it does not say its unit.
fn duration(value: &Expr) -> Result<TokenStream> {
    let Expr::Lit(ExprLit { lit, .. }) = value else { return Ok(value.to_token_stream()) };
    let Lit::Str(text) = lit else {
        let text = "a duration is a text like \"30d\" or \"1h 30m\", or a `Duration`";
        return Err(Error::new(lit.span(), text));
    };
    let duration = humantime::parse_duration(&text.value()).map_err(|error| {
        let help = "write it like \"30d\", \"1h 30m\" or \"500ms\"";
        Error::new(lit.span(), format!("{error}; {help}"))
    })?;
    let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
    Ok(quote!(::core::time::Duration::new(#seconds, #nanos)))
}

/// An expression for a number of bytes: any, or a literal like `"64MiB"`, which is read now.
///
/// A literal text is read by the macro. A number is a number of bytes, and goes into the expansion as it is.
fn bytes(value: &Expr) -> Result<TokenStream> {
    let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = value else {
        return Ok(value.to_token_stream());
    };
    let bytes = read_bytes(&text.value()).ok_or_else(|| {
        let help = "a size is a text like \"64MiB\" or \"500 kB\", or a number of bytes";
        Error::new(text.span(), help)
    })?;
    Ok(quote!(#bytes))
}

/// The units of a size, in bytes.
const UNITS: [(&str, u64); 10] = [
    ("", 1),
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Digits, then a unit, with or without a space between. There are no fractions. `None`: anything else, or more than
/// a `u64` holds.
fn read_bytes(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit.trim())?;
    number.parse::<u64>().ok()?.checked_mul(*unit)
}

#[cfg(test)]
mod tests {
    use super::read_bytes;

    #[test]
    fn sizes_are_read() {
        let sizes = [("0", 0), ("512", 512), ("512 B", 512), ("3kB", 3000), ("64MiB", 64 << 20)];
        for (text, size) in sizes {
            assert_eq!(read_bytes(text), Some(size), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5GB", "1 mb", "64 MiB or so", "99999999999 TiB"] {
            assert_eq!(read_bytes(text), None, "{text}");
        }
    }
}
