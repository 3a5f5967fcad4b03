//! Well-formed JSON taken apart into brackets and scalars, one after the other, without recursion.
//!
//! Used by `tensor_json` for the elements of a tensor.

/// The kinds of JSON values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Object,
    Array,
    String,
    Number,
    Boolean,
    Null,
}

impl Kind {
    /// The kind of a well-formed JSON value, told by its first character.
    pub(super) fn of(json: &str) -> Self {
        match json.trim_start().as_bytes().first() {
            Some(b'{') => Self::Object,
            Some(b'[') => Self::Array,
            Some(b'"') => Self::String,
            Some(b't' | b'f') => Self::Boolean,
            Some(b'n') => Self::Null,
            Some(_) | None => Self::Number,
        }
    }

    /// In words.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Object => "an object",
            Self::Array => "an array",
            Self::String => "a string",
            Self::Number => "a number",
            Self::Boolean => "a truth value",
            Self::Null => "null",
        }
    }
}

/// A piece of JSON.
pub(super) enum Token<'a> {
    Open,
    Close,
    /// A number, string, boolean or null as it was written; an object as its first brace.
    Scalar(&'a str),
}

/// The brackets and scalars of well-formed JSON, in order.
pub(super) struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    pub(super) fn of(json: &'a str) -> Self {
        Self { rest: json }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.rest = self.rest.trim_start_matches([' ', '\n', '\r', '\t', ',']);
        let length = match self.rest.as_bytes().first()? {
            b'[' | b']' | b'{' | b'}' => 1,
            b'"' => string_length(self.rest.as_bytes()),
            _ => self
                .rest
                .bytes()
                .position(|byte| matches!(byte, b',' | b']' | b'}' | b' ' | b'\n' | b'\r' | b'\t'))
                .unwrap_or(self.rest.len()),
        };
        let (token, rest) = self.rest.split_at(length);
        self.rest = rest;
        Some(match token {
            "[" => Token::Open,
            "]" => Token::Close,
            scalar => Token::Scalar(scalar),
        })
    }
}

/// Length of the string literal at the start of `json`, with both quotes.
fn string_length(json: &[u8]) -> usize {
    let mut escaped = false;
    for (index, byte) in json.iter().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return index + 1,
            _ => {}
        }
    }
    json.len()
}
