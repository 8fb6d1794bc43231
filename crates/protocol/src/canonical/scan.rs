//! Whether bytes are in canonical form as they stand: one pass, nothing allocated.

use std::cmp::Ordering;

use super::MAX_INTEGER;
use crate::limits::{ENVELOPE_DEPTH, MAX_JSON_DEPTH};

/// Whether the bytes are the canonical form of an object nested at most
/// [`MAX_JSON_DEPTH`] deep.
pub fn is_canonical(json: &[u8]) -> bool {
    canonical_object(json, MAX_JSON_DEPTH).is_some()
}

/// The bytes as text if they are canonical and nested at most as deep as a frame may be.
pub(crate) fn canonical_envelope(json: &[u8]) -> Option<&str> {
    canonical_object(json, MAX_JSON_DEPTH + ENVELOPE_DEPTH)
}

/// The bytes as text if they are the canonical form of an object nested at most `depth` deep.
pub(super) fn canonical_object(json: &[u8], depth: usize) -> Option<&str> {
    let text = std::str::from_utf8(json).ok()?;
    let mut scan = Scan { bytes: json, at: 0 };
    scan.expect(b'{')?;
    scan.object(depth)?;
    (scan.at == json.len()).then_some(text)
}

/// A cursor; each method moves behind what it names, or finds that it is not there in canonical
/// form.
struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    fn literal(&mut self, rest: &[u8]) -> Option<()> {
        self.bytes[self.at..].starts_with(rest).then(|| self.at += rest.len())
    }

    fn value(&mut self, depth_left: usize) -> Option<()> {
        match self.next()? {
            b'{' => self.object(depth_left),
            b'[' => self.array(depth_left),
            b'"' => self.string().map(drop),
            b't' => self.literal(b"rue"),
            b'f' => self.literal(b"alse"),
            b'n' => self.literal(b"ull"),
            b'-' => match self.next()? {
                first @ b'1'..=b'9' => self.integer(first),
                _ => None,
            },
            // A zero followed by a digit fails where a comma or bracket is expected.
            b'0' => Some(()),
            first @ b'1'..=b'9' => self.integer(first),
            _ => None,
        }
    }

    /// The rest of an object after its opening brace.
    fn object(&mut self, depth_left: usize) -> Option<()> {
        let depth_left = depth_left.checked_sub(1)?;
        if self.peek()? == b'}' {
            self.at += 1;
            return Some(());
        }
        let mut last: Option<&[u8]> = None;
        loop {
            self.expect(b'"')?;
            let key = self.string()?;
            if last.is_some_and(|last| compare_keys(last, key) != Ordering::Less) {
                return None;
            }
            last = Some(key);
            self.expect(b':')?;
            self.value(depth_left)?;
            match self.next()? {
                b',' => {}
                b'}' => return Some(()),
                _ => return None,
            }
        }
    }

    /// The rest of an array after its opening bracket.
    fn array(&mut self, depth_left: usize) -> Option<()> {
        let depth_left = depth_left.checked_sub(1)?;
        if self.peek()? == b']' {
            self.at += 1;
            return Some(());
        }
        loop {
            self.value(depth_left)?;
            match self.next()? {
                b',' => {}
                b']' => return Some(()),
                _ => return None,
            }
        }
    }

    /// The rest of a string after its opening quotation mark; gives what lies between the marks.
    fn string(&mut self) -> Option<&'a [u8]> {
        let from = self.at;
        loop {
            self.at += plain_len(&self.bytes[self.at..]);
            match self.next()? {
                b'"' => return Some(&self.bytes[from..self.at - 1]),
                b'\\' => self.escape()?,
                _ => return None,
            }
        }
    }

    /// The rest of an escape after the backslash, which must be the shortest for its character.
    fn escape(&mut self) -> Option<()> {
        match self.next()? {
            b'"' | b'\\' | b'b' | b't' | b'n' | b'f' | b'r' => Some(()),
            b'u' => {
                self.literal(b"00")?;
                let high = self.next()?;
                let low = self.next()?;
                let short = high == b'0' && matches!(low, b'8' | b'9' | b'a' | b'c' | b'd');
                let hex = matches!(high, b'0' | b'1') && matches!(low, b'0'..=b'9' | b'a'..=b'f');
                (hex && !short).then_some(())
            }
            _ => None,
        }
    }

    /// The rest of a positive integer after its first digit.
    fn integer(&mut self, first: u8) -> Option<()> {
        let mut integer = i64::from(first - b'0');
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            // Below 2^53 before, so that ten times as much is within 64 bits.
            integer = integer * 10 + i64::from(digit - b'0');
            if integer > MAX_INTEGER {
                return None;
            }
            self.at += 1;
        }
        Some(())
    }
}

/// How many bytes at the beginning stand in a string as they are: up to a quotation mark, a
/// backslash or a control character. Eight at a time, since most of an event is text.
pub(super) fn plain_len(bytes: &[u8]) -> usize {
    let (words, _) = bytes.as_chunks::<8>();
    let plain = words.iter().take_while(|word| is_plain_word(**word)).count() * 8;
    let special = |byte: &u8| *byte < 0x20 || matches!(byte, b'"' | b'\\');
    bytes[plain..].iter().position(special).map_or(bytes.len(), |at| plain + at)
}

/// Subtracting from every byte at once borrows into the top bit of those that are smaller; a byte
/// whose top bit was set before is no ASCII.
fn is_plain_word(word: [u8; 8]) -> bool {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let word = u64::from_le_bytes(word);
    let below = |word: u64, bound: u8| word.wrapping_sub(EACH * u64::from(bound)) & !word;
    let equal = |byte: u8| below(word ^ (EACH * u64::from(byte)), 1);
    (below(word, 0x20) | equal(b'"') | equal(b'\\')) & (EACH * 0x80) == 0
}

/// Orders two escaped strings by the code points that they spell, which is the order of their
/// UTF-8 bytes.
fn compare_keys(a: &[u8], b: &[u8]) -> Ordering {
    if a.contains(&b'\\') || b.contains(&b'\\') { unescaped(a).cmp(unescaped(b)) } else { a.cmp(b) }
}

/// The bytes that an escaped string spells; its escapes were checked.
fn unescaped(string: &[u8]) -> impl Iterator<Item = u8> {
    let mut rest = string.iter().copied();
    std::iter::from_fn(move || {
        let byte = rest.next()?;
        if byte != b'\\' {
            return Some(byte);
        }
        Some(match rest.next()? {
            b'b' => 0x08,
            b't' => b'\t',
            b'n' => b'\n',
            b'f' => 0x0c,
            b'r' => b'\r',
            b'u' => {
                let mut hex =
                    rest.by_ref().skip(2).take(2).filter_map(|b| char::from(b).to_digit(16));
                let code = hex.next()? * 16 + hex.next()?;
                u8::try_from(code).ok()?
            }
            plain => plain,
        })
    })
}
