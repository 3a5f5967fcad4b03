//! Masks what identifies a person in a text before it is tokenized: e-mail addresses, telephone and card numbers, IP
//! addresses.
//!
//! Called for each text of a model whose `model.toml` asks for it. Looks at characters alone, in time that grows with the
//! text's length; what it does not know for one of the four it leaves. Each find is replaced by its kind in brackets.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Digits of a card number (ISO/IEC 7812-1).
const CARD_DIGITS: Range<usize> = 13..20;
/// Digits of a telephone number with its country code (E.164), from the shortest in use.
const INTERNATIONAL_DIGITS: Range<usize> = 8..16;
/// Digits of a telephone number written in groups without one: fewer are dates, versions and prices as often.
const NATIONAL_DIGITS: Range<usize> = 10..16;
/// Digits of a telephone number without groups, by its leading zero.
const TRUNK_DIGITS: Range<usize> = 9..16;
/// What may stand between the groups of a telephone number.
const PHONE_SEPARATORS: &[u8] = b" -./()";
/// Characters of the longest textual IPv6 address.
const MAX_IPV6_CHARS: usize = 45;

/// A kind of thing that is masked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MaskKind {
    /// `name@example.org`.
    Email,
    /// A telephone number: with `+`, in groups of ten digits and more, or with a leading zero.
    Phone,
    /// A payment card's number whose check digit (Luhn) is right.
    Card,
    /// An IPv4 or IPv6 address.
    Ip,
}

impl MaskKind {
    /// In the order in which they are looked for: a card's number could be taken for a telephone's.
    const ORDER: [Self; 4] = [Self::Email, Self::Card, Self::Ip, Self::Phone];

    /// What stands in the place of a find.
    const fn placeholder(self) -> &'static str {
        match self {
            Self::Email => "[email]",
            Self::Phone => "[phone]",
            Self::Card => "[card]",
            Self::Ip => "[ip]",
        }
    }

    /// The first find at or after byte `from`.
    fn find(self, text: &str, from: usize) -> Option<Range<usize>> {
        let text = Text(text);
        match self {
            Self::Email => text.email(from),
            Self::Phone => {
                text.starts(from, |c| c.is_ascii_digit() || c == b'+' || c == b'(').find_map(|at| text.phone(at))
            }
            Self::Card => text.starts(from, |c| c.is_ascii_digit()).find_map(|at| text.card(at)),
            Self::Ip => text.starts(from, |c| c.is_ascii_hexdigit() || c == b':').find_map(|at| text.ip(at)),
        }
    }
}

/// A text in which every find is replaced.
#[derive(Debug)]
pub(super) struct Masked<'a> {
    /// The text; as it came where there was no find.
    pub(super) text: Cow<'a, str>,
    /// What was replaced in each pass over the text, one for each kind.
    passes: Vec<Vec<Replaced>>,
}

/// A find, in bytes of the text before and after a pass.
#[derive(Debug)]
struct Replaced {
    before: Range<usize>,
    after: Range<usize>,
}

impl Masked<'_> {
    /// Where in the text as it came the bytes `at` stand: for a part of a placeholder all of the find.
    pub(super) fn origin(&self, at: Range<usize>) -> Range<usize> {
        let back = |at: Range<usize>, pass: &Vec<Replaced>| before(pass, at.start, false)..before(pass, at.end, true);
        self.passes.iter().rev().fold(at, back)
    }
}

/// Where the byte `at` stood before `pass`; of a placeholder the beginning or the end of the find.
fn before(pass: &[Replaced], at: usize, is_end: bool) -> usize {
    let begins_before = |find: &Replaced| if is_end { find.after.start < at } else { find.after.start <= at };
    // In the order of the text.
    let begun = pass.partition_point(begins_before);
    match begun.checked_sub(1).and_then(|last| pass.get(last)) {
        Some(find) if is_end && at <= find.after.end => find.before.end,
        Some(find) if !is_end && at < find.after.end => find.before.start,
        Some(find) => find.before.end + (at - find.after.end),
        None => at,
    }
}

/// `text` with every find of `kinds` replaced.
pub(super) fn mask<'a>(text: &'a str, kinds: &[MaskKind]) -> Masked<'a> {
    let mut masked = Masked { text: Cow::Borrowed(text), passes: Vec::new() };
    for kind in MaskKind::ORDER.into_iter().filter(|kind| kinds.contains(kind)) {
        if let Some((changed, pass)) = replaced(&masked.text, kind) {
            masked.text = Cow::Owned(changed);
            masked.passes.push(pass);
        }
    }
    masked
}

fn replaced(text: &str, kind: MaskKind) -> Option<(String, Vec<Replaced>)> {
    let mut masked = String::new();
    let mut pass = Vec::new();
    let mut kept = 0;
    while let Some(find) = kind.find(text, kept) {
        masked.push_str(text.get(kept..find.start).unwrap_or_default());
        let start = masked.len();
        masked.push_str(kind.placeholder());
        kept = find.end;
        pass.push(Replaced { before: find, after: start..masked.len() });
    }
    if kept == 0 {
        return None;
    }
    masked.push_str(text.get(kept..).unwrap_or_default());
    Some((masked, pass))
}

/// A text to be searched by bytes. Every find begins and ends with an ASCII character, or where a letter does.
#[derive(Clone, Copy)]
struct Text<'a>(&'a str);

impl<'a> Text<'a> {
    /// The byte at `at`; 0 beyond both ends.
    fn byte(self, at: usize) -> u8 {
        self.0.as_bytes().get(at).copied().unwrap_or_default()
    }

    fn before(self, at: usize) -> u8 {
        at.checked_sub(1).map_or(0, |at| self.byte(at))
    }

    /// Where a word that `begins` so may begin: not within another word.
    fn starts(self, from: usize, begins: impl Fn(u8) -> bool + 'a) -> impl Iterator<Item = usize> + 'a {
        (from..self.0.len()).filter(move |at| begins(self.byte(*at)) && !is_word(self.before(*at)))
    }

    fn email(self, from: usize) -> Option<Range<usize>> {
        let rest = self.0.get(from..)?;
        rest.match_indices('@').find_map(|(offset, _)| {
            let at = from + offset;
            let before = self.0.get(from..at)?;
            let local =
                before.len() - before.trim_end_matches(|c: char| c.is_alphanumeric() || "._%+-'".contains(c)).len();
            let after = self.0.get(at + 1..)?;
            let domain =
                after.len() - after.trim_start_matches(|c: char| c.is_alphanumeric() || c == '.' || c == '-').len();
            let domain = after.get(..domain)?.trim_end_matches(['.', '-']);
            let top = domain.rsplit('.').next()?;
            let is_domain = domain.contains('.') && top.chars().count() >= 2 && top.chars().all(char::is_alphabetic);
            (local > 0 && is_domain).then(|| at - local..at + 1 + domain.len())
        })
    }

    /// The end of each group of digits from `at` on, with the digits up to there; single separators stand between groups.
    fn groups(self, at: usize, separators: &'static [u8], most: usize) -> Vec<(usize, usize)> {
        let (mut groups, mut digits, mut here) = (Vec::new(), 0, at);
        loop {
            let begin = here;
            while self.byte(here).is_ascii_digit() {
                here += 1;
            }
            digits += here - begin;
            if here == begin || digits > most {
                return groups;
            }
            groups.push((here, digits));
            if separators.contains(&self.byte(here)) {
                here += 1;
            }
            // `(030) 12 34` and `030 - 1234` have two or three of them.
            if !self.byte(here).is_ascii_digit() && separators.len() > 2 {
                while separators.contains(&self.byte(here)) && here - begin < most {
                    here += 1;
                }
            }
        }
    }

    fn card(self, at: usize) -> Option<Range<usize>> {
        let groups = self.groups(at, b" -", CARD_DIGITS.end);
        let fits = |(end, digits): &&(usize, usize)| {
            CARD_DIGITS.contains(digits) && !is_word(self.byte(*end)) && self.0.get(at..*end).is_some_and(passes_luhn)
        };
        groups.iter().rev().find(fits).map(|(end, _)| at..*end)
    }

    fn ip(self, at: usize) -> Option<Range<usize>> {
        // A part of a longer dotted or coloned word is none.
        if matches!(self.before(at), b'.' | b':') {
            return None;
        }
        let rest = self.0.get(at..)?;
        let is_part = |c: char| c.is_ascii_hexdigit() || c == ':' || c == '.';
        let run = rest.len() - rest.trim_start_matches(is_part).len();
        let run = rest.get(..run.min(MAX_IPV6_CHARS))?;
        if is_word(self.byte(at + run.len())) {
            return None;
        }
        let candidates = [run, run.trim_end_matches(['.', ':'])];
        let found = candidates.into_iter().find(|candidate| is_address(candidate));
        // `192.0.2.1:8080`: the port is no part of it.
        let host = run.split(':').next().filter(|host| host.parse::<Ipv4Addr>().is_ok());
        found.or(host).map(|address| at..at + address.len())
    }

    /// Whether what stands at `at` may part the groups of a telephone number.
    fn separates(self, at: usize) -> bool {
        PHONE_SEPARATORS.contains(&self.byte(at))
    }

    fn phone(self, at: usize) -> Option<Range<usize>> {
        let is_international = self.byte(at) == b'+';
        // A part of a longer number is none.
        let is_tail = self.separates(at.saturating_sub(1)) && self.before(at.saturating_sub(1)).is_ascii_digit();
        if is_tail && !is_international {
            return None;
        }
        let lead = usize::from(!self.byte(at).is_ascii_digit());
        let begin = at + lead;
        let groups = self.groups(begin, PHONE_SEPARATORS, INTERNATIONAL_DIGITS.end);
        let is_date = matches!(groups.as_slice(), [(year, 4), (_, 6), ..] if self.byte(*year) == b'-');
        let is_trunk = self.byte(begin) == b'0';
        let fits = |(count, (end, digits)): &(usize, &(usize, usize))| {
            let range = if is_international {
                INTERNATIONAL_DIGITS
            } else if is_trunk {
                TRUNK_DIGITS
            } else {
                NATIONAL_DIGITS
            };
            let is_written_so = is_international || is_trunk || (*count > 0 && !is_date);
            let goes_on = self.separates(*end) && self.byte(end.saturating_add(1)).is_ascii_digit();
            range.contains(digits) && is_written_so && !goes_on && !is_word(self.byte(*end))
        };
        groups.iter().enumerate().rfind(fits).map(|(_, (end, _))| at..*end)
    }
}

/// Whether a byte is part of a word; every byte of a letter beyond ASCII is.
const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80
}

fn is_address(text: &str) -> bool {
    // Two colons alone are punctuation.
    text.parse::<Ipv4Addr>().is_ok() || (text.len() > 2 && text.parse::<Ipv6Addr>().is_ok())
}

/// The check of ISO/IEC 7812-1, annex B: from the right, every second digit doubled, the digits' sum a multiple of ten.
fn passes_luhn(text: &str) -> bool {
    let digits = text.bytes().rev().filter(u8::is_ascii_digit).map(|digit| u32::from(digit - b'0'));
    let sum: u32 = digits
        .enumerate()
        .map(|(place, digit)| match (place % 2, digit) {
            (0, digit) => digit,
            (_, digit) if digit > 4 => digit * 2 - 9,
            (_, digit) => digit * 2,
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [MaskKind; 4] = MaskKind::ORDER;

    #[test]
    fn what_is_masked_is_known_by_where_it_stood() {
        let text = "ask 192.0.2.7 or jane@example.org, not 4111 1111 1111 1111 twice";
        let masked = mask(text, &ALL);
        assert_eq!(masked.text, "ask [ip] or [email], not [card] twice");
        let stood = |part: &str| {
            let start = masked.text.find(part).unwrap();
            &text[masked.origin(start..start + part.len())]
        };
        for same in ["ask", "or", "not", "twice", " or "] {
            assert_eq!(stood(same), same);
        }
        assert_eq!((stood("ip"), stood("[ip]")), ("192.0.2.7", "192.0.2.7"));
        assert_eq!((stood("email"), stood("[card]")), ("jane@example.org", "4111 1111 1111 1111"));
        assert_eq!(stood("k [ip] o"), "k 192.0.2.7 o");
    }

    #[test]
    fn what_identifies_is_masked() {
        for (text, expected) in [
            ("write to jane.doe+x@mail.example.org.", "write to [email]."),
            ("<o'neil@example.co.uk>, b@x.de", "<[email]>, [email]"),
            ("müller@straße.example und so", "[email] und so"),
            ("pay 4111 1111 1111 1111 12/27 now", "pay [card] 12/27 now"),
            ("4111-1111-1111-1111", "[card]"),
            ("amex 378282246310005.", "amex [card]."),
            ("from 192.168.0.17 to 10.0.0.1:8080", "from [ip] to [ip]:8080"),
            ("at 2001:db8::8a2e:370:7334, ::1.", "at [ip], [ip]."),
            ("[fe80::1]", "[[ip]]"),
            ("call +49 (0)30 901820 or +14155552671", "call [phone] or [phone]"),
            ("tel 030-901820-12, (415) 555-2671", "tel [phone], [phone]"),
            ("0612345678", "[phone]"),
        ] {
            assert_eq!(mask(text, &ALL).text, expected, "{text}");
        }
    }

    #[test]
    fn what_only_looks_like_it_stays() {
        for text in [
            "",
            "user@localhost and @handle and a@b.c",
            "4111 1111 1111 1112",
            "order 123456789012",
            "version 1.2.3 of 999.1.1.1 and 1.2.3.4.5",
            "at 12:30:45 on 2026-11-24 12:30 and 24.12.2026",
            "std::vec::Vec and :: alone",
            "a1234567890123456789b",
            "1,234,567,890 euros",
            "10 - 20 - 30",
        ] {
            assert_eq!(mask(text, &ALL).text, text);
        }
    }

    #[test]
    fn only_the_kinds_that_are_asked_for_are_masked() {
        let text = "a@example.org 10.0.0.1 4111111111111111 +14155552671";
        for (kind, expected) in [
            (MaskKind::Email, "[email] 10.0.0.1 4111111111111111 +14155552671"),
            (MaskKind::Ip, "a@example.org [ip] 4111111111111111 +14155552671"),
            (MaskKind::Card, "a@example.org 10.0.0.1 [card] +14155552671"),
            (MaskKind::Phone, "a@example.org 10.0.0.1 4111111111111111 [phone]"),
        ] {
            assert_eq!(mask(text, &[kind]).text, expected);
        }
        assert!(matches!(mask(text, &[]).text, Cow::Borrowed(_)));
    }

    #[test]
    fn a_long_text_of_near_misses_is_masked_in_time() {
        for piece in ["1 ", "1-", "@a.", "::", "1.", "+", "(", "0", "4111 1111 1111 111"] {
            let text = piece.repeat(256 * 1_024 / piece.len());
            assert!(!mask(&text, &ALL).text.is_empty());
        }
    }

    /// Appends the check digit that makes it pass.
    fn with_check_digit(digits: &str) -> String {
        (0..10).map(|digit| format!("{digits}{digit}")).find(|number| passes_luhn(number)).unwrap()
    }

    proptest! {
        #[test]
        fn any_text_is_taken_and_masking_twice_changes_nothing_more(text in "\\PC{0,80}") {
            let once = mask(&text, &ALL).text.into_owned();
            prop_assert_eq!(mask(&once, &ALL).text, once.clone());
        }

        #[test]
        fn every_card_with_its_check_digit_is_found(digits in "[1-9][0-9]{11,17}", word in "[a-z]{1,8}") {
            let number = with_check_digit(&digits);
            let masked = mask(&format!("{word} {number} {word}"), &[MaskKind::Card]).text.into_owned();
            prop_assert_eq!(masked, format!("{word} [card] {word}"));
            // One digit changed breaks the check (Luhn finds every single error).
            let last = number.len() - 1;
            let wrong = format!("{}{}", &number[..last], (number.as_bytes()[last] - b'0' + 1) % 10);
            prop_assert_eq!(mask(&wrong, &[MaskKind::Card]).text, wrong.clone());
        }

        #[test]
        fn every_address_is_found(four: [u8; 4], six: [u16; 8]) {
            for address in [Ipv4Addr::from(four).to_string(), Ipv6Addr::from(six).to_string()] {
                prop_assume!(address.len() > 2);
                let text = format!("<{address}>");
                prop_assert_eq!(mask(&text, &[MaskKind::Ip]).text, "<[ip]>");
            }
        }
    }
}
