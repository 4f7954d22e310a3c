//! `#[derive(CacheKey)]` and `#[derive(Schema)]`: names, order and types of fields and variants.
//!
//! ```text
//! #[derive(CacheKey)]                impl CacheKey for Size {
//! struct Size { w: u32, h: u32 }         const SCHEMA: KeySchema = KeySchema::new("Size")
//!                                            .field("w", <u32 as CacheKey>::SCHEMA)
//!                                            .field("h", <u32 as CacheKey>::SCHEMA);
//!                                        fn feed(&self, key: &mut KeyWriter<'_>) {
//!                                            CacheKey::feed(&self.w, key);
//!                                            CacheKey::feed(&self.h, key);
//!                                        }
//!                                    }
//! ```
//!
//! The schema stands in the function's scope, once; the values stand in each key. So a field that is renamed makes
//! all entries misses, and no key is longer for that.
//!
//! What the two derives say of a type differs, since they are asked different questions:
//!
//! ```text
//!                       CacheKey                            Schema
//! asked of              an argument                         a result
//! has to tell           values, and its type                its type
//! renamed field         a miss                              a miss
//! type's own name       counts                              counts
//! field left out        skip: not fed, not in the schema    opaque: by the spelling of its type
//! computed by           the compiler, as a constant         the program, once for each table or function
//! holds itself          `Itself` stands for it              a number stands for it
//! #[rkyv(..)]           nothing                             counts: it changes how a value is archived
//! ```
//!
//! A key's schema is a constant, so that two key types can be compared when the program is compiled (`Table::rekey`).
//! That is why a key that holds itself needs a stand-in: a constant cannot be made of itself. The schema of a result
//! can go by `TypeId`s, which there are when the program runs.

use proc_macro2::TokenStream;
use quote::{ToTokens as _, format_ident, quote, quote_spanned};
use syn::ext::IdentExt as _;
use syn::spanned::Spanned as _;
use syn::visit_mut::{self, VisitMut};
use syn::{
    Attribute, Data, DataEnum, DeriveInput, Error, Field, Fields, Generics, Ident, Index, Meta,
    Path, Result, Type, TypePath, parse_quote,
};

/// What an attribute of a derive may say of a type or field.
///
/// It is one struct for both derives, of which each has one word of its own.
struct Said {
    crate_path: Path,
    /// `#[cache_key(skip)]` or `#[schema(opaque)]`.
    word: bool,
}

/// What the attributes of a type or a field say under a derive's name. An unknown word is an error, at its place.
///
/// `name` is the derive's attribute, and `word` the one word that it knows. The attributes of a field are parsed each
/// time that something of it is asked: that is once or twice in an expansion.
///
/// It does not know whether it looks at a type or at a field: `skip` on a type and `crate` on a field are taken, and
/// have no effect. The attributes of a variant are not looked at.
fn said(attributes: &[Attribute], name: &str, word: &str) -> Result<Said> {
    let mut said = Said { crate_path: parse_quote!(::persist_cache), word: false };
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident(name)) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("crate") {
                said.crate_path = meta.value()?.call(Path::parse_mod_style)?;
            } else if meta.path.is_ident(word) {
                said.word = true;
            } else {
                let text = format!("`{name}` knows `crate = path` on types and `{word}` on fields");
                return Err(meta.error(text));
            }
            Ok(())
        })?;
    }
    Ok(said)
}

/// A name as it counts: without the `r#` that makes a keyword one.
fn type_name(ident: &Ident) -> String {
    ident.unraw().to_string()
}

/// The name of a field, or its number in a tuple.
fn field_name(field: &Field, number: usize) -> String {
    field.ident.as_ref().map_or_else(|| number.to_string(), type_name)
}

/// Bounds every type parameter.
///
/// As the derives of std do. A bound for each field's type would ask less of a parameter that stands in a
/// `PhantomData` alone; but both derives mention the parameters by themselves, too.
fn bounded(generics: &Generics, bound: &TokenStream) -> Generics {
    let mut generics = generics.clone();
    for parameter in generics.type_params_mut() {
        parameter.bounds.push(parse_quote!(#bound));
    }
    generics
}

/// A union is refused by both derives.
///
/// Reading a field of a union is unsafe, too.
fn refuse_union(input: &DeriveInput) -> Result<()> {
    match &input.data {
        Data::Union(data) => {
            let text = "nobody knows which field of a union counts";
            Err(Error::new_spanned(data.union_token, text))
        }
        Data::Struct(_) | Data::Enum(_) => Ok(()),
    }
}

/// `#[derive(CacheKey)]`: a schema of the names and the schemas of the fields, and a `feed` that feeds them in their
/// order.
///
/// Each call of a field's `feed` has the place of the field's type, so that a type which is no key is told of there.
///
/// The schema leaves out the fields that `feed` leaves out: a `skip` that comes or goes makes all entries misses.
pub(crate) fn cache_key(input: DeriveInput) -> Result<TokenStream> {
    refuse_union(&input)?;
    let crate_path = said(&input.attrs, "cache_key", "skip")?.crate_path;
    let schema = key_schema(&input, &crate_path)?;
    let feed = match &input.data {
        Data::Struct(data) => feed_fields(&data.fields, &crate_path)?,
        Data::Enum(data) => feed_variants(data, &crate_path)?,
        Data::Union(_) => unreachable!("refused above"),
    };
    let generics = bounded(&input.generics, &quote!(#crate_path::CacheKey));
    let (implements, arguments, clause) = generics.split_for_impl();
    let ident = &input.ident;
    Ok(quote! {
        #[automatically_derived]
        impl #implements #crate_path::CacheKey for #ident #arguments #clause {
            const SCHEMA: #crate_path::KeySchema = #schema;
            #[allow(unused_variables)]
            fn feed(&self, key: &mut #crate_path::KeyWriter<'_>) { #feed }
        }
    })
}

/// The schema of a key: the names and schemas of its fields, or of its variants and theirs.
///
/// A struct `P { x: X }` gives `new("P").field("x", X)`. An enum `E { A(X), B }` gives `new("E").field("A",
/// new("A").field("0", X)).field("B", new("B"))`. So the order of variants is in the schema, and `feed` need only say
/// a variant's number: when variants are exchanged, the schema is another.
fn key_schema(input: &DeriveInput, crate_path: &Path) -> Result<TokenStream> {
    let schema_of = |name: String, fields: &Fields| -> Result<TokenStream> {
        let mut schema = quote!(#crate_path::KeySchema::new(#name));
        for (number, field) in fields.iter().enumerate() {
            if said(&field.attrs, "cache_key", "skip")?.word {
                continue;
            }
            let (name, ty) =
                (field_name(field, number), without_self(input, crate_path, &field.ty));
            let span = ty.span();
            schema.extend(
                quote_spanned!(span=> .field(#name, <#ty as #crate_path::CacheKey>::SCHEMA)),
            );
        }
        Ok(schema)
    };
    let name = type_name(&input.ident);
    let schema = match &input.data {
        Data::Struct(data) => schema_of(name, &data.fields)?,
        Data::Enum(data) => {
            let mut schema = quote!(#crate_path::KeySchema::new(#name));
            for variant in &data.variants {
                let name = type_name(&variant.ident);
                let fields = schema_of(name.clone(), &variant.fields)?;
                schema.extend(quote!(.field(#name, #fields)));
            }
            schema
        }
        Data::Union(_) => unreachable!("refused by the caller"),
    };
    // What no field has to show: two types that differ in it alone are two.
    // `keys_that_differ_in_a_parameter_alone` in `tests/attribute.rs` shows it.
    let types = input.generics.type_params().map(|parameter| &parameter.ident);
    let consts = input.generics.const_params().map(|parameter| &parameter.ident);
    Ok(quote! {
        #schema
        #(.of(<#types as #crate_path::CacheKey>::SCHEMA))*
        #(.constant(#consts as u128))*
    })
}

/// The name by which a field is found, as a field or in a pattern.
fn member(field: &Field, number: usize) -> TokenStream {
    match &field.ident {
        Some(ident) => ident.to_token_stream(),
        None => Index::from(number).to_token_stream(),
    }
}

/// Statements that feed the fields of a struct.
///
/// Nothing stands between the fields. Each type's encoding has to say where it ends, by a length, a tag, or being
/// always as long; so no two values of the struct run together.
fn feed_fields(fields: &Fields, crate_path: &Path) -> Result<TokenStream> {
    let mut feeds = TokenStream::new();
    for (number, field) in fields.iter().enumerate() {
        if !said(&field.attrs, "cache_key", "skip")?.word {
            let (member, span) = (member(field, number), field.ty.span());
            feeds.extend(quote_spanned!(span=> #crate_path::CacheKey::feed(&self.#member, key);));
        }
    }
    Ok(feeds)
}

/// A `match` that feeds the number of the variant, and then its fields. An enum without variants has no value to
/// feed.
///
/// A pattern names the fields that are fed, by name or by number, and `..` takes those that are skipped. A match of
/// an enum without variants is on `*self`: one on a reference would have to have an arm.
fn feed_variants(data: &DataEnum, crate_path: &Path) -> Result<TokenStream> {
    let mut arms = TokenStream::new();
    for (number, variant) in data.variants.iter().enumerate() {
        let (ident, number) = (&variant.ident, number as u32);
        let (mut patterns, mut feeds) = (TokenStream::new(), TokenStream::new());
        for (place, field) in variant.fields.iter().enumerate() {
            let binding = format_ident!("field_{place}");
            let member = member(field, place);
            if !said(&field.attrs, "cache_key", "skip")?.word {
                patterns.extend(quote!(#member: #binding,));
                let span = field.ty.span();
                feeds.extend(quote_spanned!(span=> #crate_path::CacheKey::feed(#binding, key);));
            }
        }
        arms.extend(quote!(Self::#ident { #patterns .. } => { key.variant(#number); #feeds }));
    }
    Ok(match data.variants.is_empty() {
        true => quote!(match *self {}),
        false => quote!(match self { #arms }),
    })
}

/// A field's type with a stand-in where it names the type itself, whose schema would have no end.
///
/// A path of one segment that is `Self` or the type's name is replaced, at any depth within the field's type:
/// `Option<Box<Node>>` becomes `Option<Box<Itself>>`. A longer path to the same type is not known to lead there; its
/// schema then needs itself, which the compiler refuses. What generic arguments the type has at that place is not
/// looked at.
///
/// The stand-in is in the schema alone. `feed` is of the real types.
fn without_self(input: &DeriveInput, crate_path: &Path, ty: &Type) -> Type {
    struct Replace<'a>(&'a Ident, &'a Path);
    impl VisitMut for Replace<'_> {
        fn visit_type_path_mut(&mut self, path: &mut TypePath) {
            let is_self = path.path.is_ident("Self")
                || path.path.segments.len() == 1 && path.path.segments[0].ident == *self.0;
            if is_self && path.qself.is_none() {
                let crate_path = self.1;
                *path = parse_quote!(#crate_path::__private::Itself);
            } else {
                visit_mut::visit_type_path_mut(self, path);
            }
        }
    }
    let mut ty = ty.clone();
    Replace(&input.ident, crate_path).visit_type_mut(&mut ty);
    ty
}

/// `#[derive(Schema)]`: statements that describe the type to a `SchemaWriter`, name by name.
///
/// A discriminant that is written out counts, in the spelling of its expression. The type's generic parameters are
/// described before its fields, so that two types that differ in an unused one are two.
pub(crate) fn schema(input: DeriveInput) -> Result<TokenStream> {
    refuse_union(&input)?;
    let crate_path = said(&input.attrs, "schema", "opaque")?.crate_path;
    let name = type_name(&input.ident);
    let (own, parts) = (rkyv_says(&input.attrs), describe(&input.data)?);
    let generics = bounded(&input.generics, &quote!(#crate_path::Schema));
    let (implements, arguments, clause) = generics.split_for_impl();
    let ident = &input.ident;
    let types = input.generics.type_params().map(|parameter| &parameter.ident);
    let consts = input.generics.const_params().map(|parameter| {
        let ident = &parameter.ident;
        quote!(schema.name(&::std::format!("{:?}", #ident));)
    });
    Ok(quote! {
        #[automatically_derived]
        impl #implements #crate_path::Schema for #ident #arguments #clause {
            fn describe(schema: &mut #crate_path::SchemaWriter) {
                schema.name(#name);
                #(schema.of::<#types>();)*
                #(#consts)*
                #own
                #parts
            }
        }
    })
}

/// Statements that describe the fields of a struct, or the variants of an enum with theirs.
///
/// Each variant is a word of its own kind, behind which its fields stand, so that no field is taken for
/// one of the next variant.
fn describe(data: &Data) -> Result<TokenStream> {
    let data = match data {
        Data::Struct(data) => return describe_fields(&data.fields),
        Data::Enum(data) => data,
        Data::Union(_) => unreachable!("refused by the caller"),
    };
    let mut parts = TokenStream::new();
    for variant in &data.variants {
        let (name, fields) = (type_name(&variant.ident), describe_fields(&variant.fields)?);
        let value = variant.discriminant.as_ref().map(|(_, value)| {
            let value = value.to_token_stream().to_string();
            quote!(schema.name(#value);)
        });
        parts.extend(quote!(schema.variant(#name); #value #fields));
    }
    Ok(parts)
}

/// Statements that describe fields. One that is `opaque` is described by how its type is spelled, and not by what
/// that is made of.
fn describe_fields(fields: &Fields) -> Result<TokenStream> {
    let mut parts = TokenStream::new();
    for (number, field) in fields.iter().enumerate() {
        let (name, ty, with) = (field_name(field, number), &field.ty, rkyv_says(&field.attrs));
        parts.extend(match said(&field.attrs, "schema", "opaque")?.word {
            true => {
                let spelled = ty.to_token_stream().to_string().replace(' ', "");
                quote!(schema.name(#name); schema.name(#spelled);)
            }
            false => quote!(schema.field::<#ty>(#name);),
        });
        parts.extend(with);
    }
    Ok(parts)
}

/// What rkyv was told of a type or field may change how it is archived.
///
/// Each option of `#[rkyv(..)]` is a word: `with = Inline` for instance, without its spaces. A comma within brackets
/// is a part of an option, since brackets are one token tree. `crate = path` is left out; so is `#[rkyv]` without
/// brackets, which says nothing.
fn rkyv_says(attributes: &[Attribute]) -> TokenStream {
    let says = attributes.iter().filter(|attribute| attribute.path().is_ident("rkyv"));
    let mut words = TokenStream::new();
    for attribute in says {
        let Meta::List(list) = &attribute.meta else { continue };
        let mut word = String::new();
        let mut say = |word: &mut String| {
            // Where rkyv is found does not change what it does.
            if !word.is_empty() && !word.starts_with("crate=") {
                words.extend(quote!(schema.name(#word);));
            }
            word.clear();
        };
        for tree in list.tokens.clone() {
            match tree.to_string() {
                comma if comma == "," => say(&mut word),
                text => word.extend(text.chars().filter(|c| !c.is_whitespace())),
            }
        }
        // The last option need have no comma behind it.
        say(&mut word);
    }
    words
}
