//! New inputs from known ones, from a seed.

/// Pieces that the formats are made of, and numbers at which they break.
const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "null",
    "true",
    "-0",
    "0",
    "1e1",
    "0.5",
    "-1",
    "9007199254740991",
    "9007199254740992",
    "18446744073709551616",
    "\"signatures\":",
    "\"server_keys\":",
    "\"origin\":",
    "\"content\":{}",
    "\"v\":1,",
    "{}",
    "[]",
    "ed25519:",
    "!a:b",
    "$a",
    "@a:b",
    "example.org",
    "AAAA",
    "\u{0}",
    "\u{7f}",
    "\u{feff}",
    "\u{1f600}",
    " ",
    "\n",
    "=",
    "-",
    "_",
    "X-Matrix ",
];

/// Longest input: far more than a frame's envelope, and short enough to be quick.
const MAX_BYTES: usize = 16 * 1024;

/// Numbers from a seed, good enough to choose mutations with (SplitMix64).
#[derive(Debug, Clone)]
pub struct Choices(u64);

impl Choices {
    /// Choices that follow from `seed`.
    pub fn from_seed(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 where that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.next() % bound).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}

/// An input made from one of `pool` by a few changes, or from nothing where that is empty.
pub fn mutated(pool: &[Vec<u8>], choices: &mut Choices) -> Vec<u8> {
    let mut bytes = pick(pool, choices).to_vec();
    for _ in 0..=choices.below(6) {
        change(&mut bytes, pool, choices);
    }
    bytes.truncate(MAX_BYTES);
    bytes
}

fn pick<'p>(pool: &'p [Vec<u8>], choices: &mut Choices) -> &'p [u8] {
    pool.get(choices.below(pool.len())).map_or(&[], Vec::as_slice)
}

fn change(bytes: &mut Vec<u8>, pool: &[Vec<u8>], choices: &mut Choices) {
    let at = choices.below(bytes.len() + 1);
    let end = at + choices.below((bytes.len() - at).min(64) + 1);
    match choices.below(8) {
        0 if at < bytes.len() => bytes[at] ^= 1 << choices.below(8),
        1 if at < bytes.len() => bytes[at] = choices.byte(),
        2 => insert(bytes, at, WORDS[choices.below(WORDS.len())].as_bytes()),
        3 => {
            let word = WORDS[choices.below(WORDS.len())].as_bytes();
            bytes.splice(at..end, word.iter().copied());
        }
        4 => drop(bytes.drain(at..end)),
        5 => {
            let piece = bytes[at..end].to_vec();
            // Sometimes so often that it nests deeply or fills a list.
            for _ in 0..=choices.below(4) * choices.below(60) {
                insert(bytes, at, &piece);
            }
        }
        6 => {
            let other = pick(pool, choices);
            let from = choices.below(other.len() + 1);
            let to = from + choices.below(other.len() - from + 1);
            bytes.splice(at..end, other[from..to].iter().copied());
        }
        7 => bytes.truncate(at),
        _ => bytes.push(choices.byte()),
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    if bytes.len() + piece.len() <= MAX_BYTES {
        bytes.splice(at..at, piece.iter().copied());
    }
}
