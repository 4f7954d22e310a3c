//! The hash of code: of its tokens one by one, so that comments, spaces, line breaks and places do not
//! count, nor does how a compiler prints them. Documentation is left out.

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};
use std::iter::Peekable;

/// 128-bit FNV-1a.
pub(crate) struct Code(u128);

/// Pairs of signs that mean something else when there is a space between them; `>>` does not.
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
    pub(crate) fn new() -> Code {
        Code(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }

    fn word(&mut self, tag: u8, bytes: &[u8]) {
        const PRIME: u128 = (1 << 88) + 0x13b;
        let length = (bytes.len() as u64).to_le_bytes();
        for byte in [tag].iter().chain(&length).chain(bytes) {
            self.0 = (self.0 ^ u128::from(*byte)).wrapping_mul(PRIME);
        }
    }

    pub(crate) fn feed(&mut self, tokens: TokenStream) {
        let mut trees = tokens.into_iter().peekable();
        while let Some(tree) = trees.next() {
            match tree {
                TokenTree::Punct(punct) if punct.as_char() == '#' && is_doc(&mut trees) => {}
                TokenTree::Punct(punct) => {
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

    pub(crate) fn hash(self) -> u128 {
        self.0
    }
}

/// Whether the rest of an attribute that documents something follows; takes it.
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
