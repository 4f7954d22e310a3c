//! The hash of code: of its tokens one by one, so that comments, spaces, line breaks and places do not
//! count, nor does how a compiler prints them. Documentation is left out.
//!
//! ```text
//! fn f(a: u8) -> u8 { a && 1 }      i:fn i:f <( i:a p::,0 i:u8 > p:-,1 p:>,0 i:u8 <{ i:a p:&,1 p:&,0 l:1 > >
//!                                   i identifier, p sign and whether it is joined to the next, l literal, < > group
//! ```
//!
//! Each token is fed as a tag, the length of its text, and the text; so no two sequences of tokens are fed as the
//! same bytes. To hash what `TokenStream::to_string` gives would be shorter. But where that puts spaces is the
//! compiler's affair, and has changed between compilers: each change would make all entries misses.
//!
//! The hash is 128-bit FNV-1a. It is small enough to stand here, so that a build of the macros needs no hash function
//! of another crate. It finds edits; it does not withstand somebody who looks for two functions with one hash, and
//! need not, since who can edit the function can make it return anything.
//!
//! What is fed is the code as the user wrote it, before any macro in it is expanded. So a change of a macro, of a
//! called function, or of a constant is not seen: that is what `deps`, `version` and `code = "program"` are for.

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};
use std::iter::Peekable;

/// 128-bit FNV-1a.
///
/// The state of the hash. It grows by [`feed`](Code::feed), and ends as [`hash`](Code::hash).
pub(crate) struct Code(u128);

/// Pairs of signs that mean something else when there is a space between them; `>>` does not.
///
/// The compiler says of a sign whether another follows at once, also where the two make no operator: in `Vec<u8>;`
/// the `>` is joined to the `;`. Only the pairs of this table are fed as joined, so that a space there makes no
/// difference. `>>` is not in it, since `Vec<Vec<u8>>` and `Vec<Vec<u8> >` are one type, and a `> >` that means
/// something else than `>>` is no code. Operators of three signs, such as `..=` and `<<=`, are two pairs.
const JOINT: [[char; 2]; 21] = [
    ['&', '&'],
    ['|', '|'],
    [':', ':'],
    ['-', '>'],
    ['=', '>'],
    ['.', '.'],
    ['=', '='],
    ['!', '='],
    ['<', '='],
    ['>', '='],
    ['<', '<'],
    ['<', '-'],
    ['+', '='],
    ['-', '='],
    ['*', '='],
    ['/', '='],
    ['%', '='],
    ['^', '='],
    ['&', '='],
    ['|', '='],
    ['.', '='],
];

impl Code {
    /// An empty hash: the offset basis of 128-bit FNV-1a.
    pub(crate) fn new() -> Code {
        Code(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }

    /// Feeds a tag, the number of bytes, and the bytes. With the number in front, what two words are made of cannot
    /// be divided in another way.
    fn word(&mut self, tag: u8, bytes: &[u8]) {
        const PRIME: u128 = (1 << 88) + 0x13b;
        let length = (bytes.len() as u64).to_le_bytes();
        for byte in [tag].iter().chain(&length).chain(bytes) {
            self.0 = (self.0 ^ u128::from(*byte)).wrapping_mul(PRIME);
        }
    }

    /// Feeds tokens one by one, and the contents of groups between an opening and a closing word. It is called by
    /// itself for each group, as deep as the code is nested. A group without delimiters, in which the compiler wraps
    /// what a macro was given as an expression, counts as a group of its own kind: that is how `a * $b` differs from
    /// the same tokens without it.
    pub(crate) fn feed(&mut self, tokens: TokenStream) {
        let mut trees = tokens.into_iter().peekable();
        while let Some(tree) = trees.next() {
            match tree {
                // `is_doc` has taken the brackets, and nothing of the attribute is fed. The guard is asked for each
                // `#`.
                TokenTree::Punct(punct) if punct.as_char() == '#' && is_doc(&mut trees) => {}
                TokenTree::Punct(punct) => {
                    // Joined for the compiler is not enough: the pair has to be an operator.
                    let is_joint = punct.spacing() == Spacing::Joint
                        && matches!(trees.peek(), Some(TokenTree::Punct(next))
                            if JOINT.contains(&[punct.as_char(), next.as_char()]));
                    self.word(b'p', &[punct.as_char() as u8, u8::from(is_joint)]);
                }
                TokenTree::Ident(ident) => self.word(b'i', ident.to_string().as_bytes()),
                TokenTree::Literal(literal) => self.word(b'l', literal.to_string().as_bytes()),
                TokenTree::Group(group) => {
                    let delimiter = match group.delimiter() {
                        Delimiter::Parenthesis => b'(',
                        Delimiter::Brace => b'{',
                        Delimiter::Bracket => b'[',
                        Delimiter::None => b' ',
                    };
                    self.word(b'<', &[delimiter]);
                    self.feed(group.stream());
                    self.word(b'>', &[]);
                }
            }
        }
    }

    /// The hash of all that was fed. The number is part of the scope of each `#[cache]` function, hence of the
    /// identity of all of its entries: `the_hash_does_not_change` pins one.
    pub(crate) fn hash(self) -> u128 {
        self.0
    }
}

/// Whether the rest of an attribute that documents something follows; takes it.
///
/// It looks ahead in a copy of the iterator, which costs the copy of a pointer and no tokens, and moves the real one
/// only if it was right: the tokens of any other attribute are then still there to be fed.
fn is_doc(trees: &mut Peekable<impl Iterator<Item = TokenTree> + Clone>) -> bool {
    let mut ahead = trees.clone();
    // An inner attribute has a `!` first.
    if matches!(ahead.peek(), Some(TokenTree::Punct(punct)) if punct.as_char() == '!') {
        ahead.next();
    }
    let Some(TokenTree::Group(group)) = ahead.next() else { return false };
    let first = group.stream().into_iter().next();
    let is_doc = matches!(first, Some(TokenTree::Ident(ident)) if ident == "doc");
    if is_doc {
        *trees = ahead;
    }
    is_doc
}

#[cfg(test)]
mod tests {
    use super::Code;

    fn hash(code: &str) -> u128 {
        let mut hash = Code::new();
        hash.feed(code.parse().unwrap());
        hash.hash()
    }

    #[test]
    fn what_means_the_same_hashes_alike() {
        let code = hash("fn f(a: u8) -> u8 { a + 1 }");
        assert_eq!(code, hash("fn f( a : u8 )\n->u8{ // more\n a /* one */ + 1 }"));
        assert_eq!(code, hash("/// Adds.\nfn f(a: u8) -> u8 { #![doc = \"x\"] a + 1 }"));
        assert_eq!(hash("Vec<Vec<u8>>;"), hash("Vec < Vec<u8>> ;"));
    }

    #[test]
    fn what_does_not_differs() {
        let code = hash("fn f(a: u8) -> u8 { a + 1 }");
        assert_ne!(code, hash("fn f(a: u8) -> u8 { a + 2 }"));
        assert_ne!(code, hash("fn f(b: u8) -> u8 { b + 1 }"));
        assert_ne!(code, hash("#[cold] fn f(a: u8) -> u8 { a + 1 }"));
        assert_ne!(hash("a && b"), hash("a & &b"));
        assert_ne!(hash("a << b"), hash("a < <b"));
        assert_ne!(hash("(a)(b)"), hash("(a(b))"));
        assert_ne!(hash("\"a b\""), hash("\"a  b\""));
    }

    /// Pinned: it is part of the identity of every entry of a `#[cache]` function.
    #[test]
    fn the_hash_does_not_change() {
        assert_eq!(hash("fn f(a: u8) -> u8 { a + 1 }"), 138459393999009232053439622990001601956);
    }
}
