//! Inputs from inputs: taken apart where their language has seams, and put together wrongly.

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64;

/// What inputs are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Words, numbers, brackets, lines.
    Text,
    /// Lengths, offsets, tags.
    Bytes,
}

/// The largest input.
const LARGEST: usize = 200 << 10;

const NUMBERS: [&str; 29] = [
    "0",
    "1",
    "-1",
    "2",
    "00",
    "007",
    "10",
    "127",
    "128",
    "255",
    "256",
    "32767",
    "32768",
    "65535",
    "65536",
    "65537",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "1e999",
    "nan",
    "-0.0",
];

const ODDITIES: [&str; 25] = [
    "\u{0}",
    "\u{1}",
    "\t",
    "\r\n",
    "\n",
    "\u{b}",
    "\u{85}",
    "\u{a0}",
    "\u{2028}",
    "\u{feff}",
    "é",
    "ß",
    "漢",
    "\u{301}",
    "\u{200b}",
    "\u{e000}",
    "\u{e001}",
    "🦀",
    "\u{10ffff}",
    "%",
    "\\",
    "{{a}}",
    "{{_base_.a}}",
    "<<: *a",
    "&a ",
];

const BRACKETS: [(&str, &str); 12] = [
    ("(", ")"),
    ("[", "]"),
    ("{", "}"),
    ("{{", "}}"),
    ("'", "'"),
    ("\"", "\""),
    ("dict(a=", ")"),
    ("{a: ", "}"),
    ("- ", ""),
    ("-", ""),
    ("[*", "]"),
    ("f'{", "}'"),
];

/// Makes inputs, one after the other.
pub(crate) struct Mutator {
    random: Pcg64,
    form: Form,
    corpus: Vec<Vec<u8>>,
    /// How many of the corpus were handed out as they are.
    shown: usize,
    real: usize,
}

impl Mutator {
    pub(crate) fn new(seed: u64, form: Form, corpus: Vec<Vec<u8>>) -> Self {
        Self {
            random: Pcg64::seed_from_u64(seed),
            form,
            shown: 0,
            real: corpus.len().min(200),
            corpus,
        }
    }

    /// An input that was answered in a new way: worth more of its kind.
    pub(crate) fn keep(&mut self, input: &[u8]) {
        self.corpus.push(input.to_vec());
    }

    /// The next input, and whether it was changed.
    pub(crate) fn next(&mut self, input: &mut Vec<u8>) -> bool {
        input.clear();
        if self.shown < self.real {
            input.extend(&self.corpus[self.shown]);
            self.shown += 1;
            return false;
        }
        let at = self.pick();
        input.extend(&self.corpus[at]);
        let changes = 1 + (self.random.random::<f64>().powi(3) * 8.0) as usize;
        for _ in 0..changes {
            match self.form {
                Form::Text if self.random.random_bool(0.95) => self.change_text(input),
                _ => self.change_bytes(input),
            }
        }
        input.truncate(LARGEST);
        true
    }

    /// Newer ones more often.
    fn pick(&mut self) -> usize {
        let length = self.corpus.len();
        if self.random.random_bool(0.5) {
            self.random.random_range(0..length)
        } else {
            self.random.random_range(length / 2..length)
        }
    }

    fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { self.random.random_range(0..end) }
    }

    /// How often: mostly once or twice, at times just past a usual limit, rarely a great deal.
    fn times(&mut self) -> usize {
        match self.below(100) {
            0..60 => 1 + self.below(3),
            60..85 => 4 + self.below(40),
            85..95 => 60 + self.below(10),
            95..99 => 120 + self.below(200),
            _ if self.random.random_bool(0.1) => 1000 + self.below(60_000),
            _ => 300 + self.below(1000),
        }
    }

    /// A run of bytes of one class around a random place.
    fn token(&mut self, input: &[u8]) -> (usize, usize) {
        let Some(last) = input.len().checked_sub(1) else { return (0, 0) };
        let at = self.below(last + 1);
        let class = |byte: u8| match byte {
            b'0'..=b'9' => 0,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => 1,
            b' ' | b'\t' => 2,
            it => 3 + usize::from(it),
        };
        let same = |other: usize| class(input[other]) == class(input[at]) && class(input[at]) < 3;
        let mut start = at;
        while start > 0 && same(start - 1) {
            start -= 1;
        }
        let mut end = at + 1;
        while end < input.len() && same(end) {
            end += 1;
        }
        (start, end)
    }

    fn line(&mut self, input: &[u8]) -> (usize, usize) {
        let at = self.below(input.len());
        let start = input[..at].iter().rposition(|&it| it == b'\n').map_or(0, |it| it + 1);
        let end =
            input[at..].iter().position(|&it| it == b'\n').map_or(input.len(), |it| at + it + 1);
        (start, end)
    }

    /// A token or a line of another input.
    fn foreign(&mut self) -> Vec<u8> {
        let at = self.pick();
        let other = std::mem::take(&mut self.corpus[at]);
        let (start, end) =
            if self.random.random_bool(0.5) { self.token(&other) } else { self.line(&other) };
        let taken = other[start..end].to_vec();
        self.corpus[at] = other;
        taken
    }

    fn change_text(&mut self, input: &mut Vec<u8>) {
        let (start, end) =
            if self.random.random_bool(0.75) { self.token(input) } else { self.line(input) };
        match self.below(14) {
            0 => drop(input.drain(start..end)),
            1 => {
                let times = self.times().min(LARGEST / (end - start).max(1));
                let repeated = input[start..end].repeat(times);
                input.splice(start..start, repeated);
            }
            2 | 3 => {
                let numbers: Vec<usize> =
                    (0..input.len()).filter(|&at| input[at].is_ascii_digit()).collect();
                let number = *NUMBERS.choose(&mut self.random).expect("numbers");
                let place = match numbers.choose(&mut self.random) {
                    Some(&at) => {
                        let from = input[..at]
                            .iter()
                            .rposition(|it| !it.is_ascii_digit())
                            .map_or(0, |it| it + 1);
                        let to = input[at..]
                            .iter()
                            .position(|it| !it.is_ascii_digit())
                            .map_or(input.len(), |it| at + it);
                        from..to
                    }
                    None => start..end,
                };
                input.splice(place, number.bytes());
            }
            4 | 5 => {
                let foreign = self.foreign();
                input.splice(start..end, foreign);
            }
            6 => {
                let foreign = self.foreign();
                input.splice(start..start, foreign);
            }
            7 => {
                let at = self.pick();
                let other = &self.corpus[at];
                let from =
                    if other.is_empty() { 0 } else { self.random.random_range(0..other.len()) };
                input.truncate(end);
                input.extend(&other[from..]);
            }
            8 => input.truncate(start),
            9 => {
                let (open, close) = *BRACKETS.choose(&mut self.random).expect("brackets");
                let times = self.times().min(LARGEST / open.len());
                let unclosed = self.random.random_bool(0.2);
                if !unclosed {
                    input.splice(end..end, close.repeat(times).into_bytes());
                }
                input.splice(start..start, open.repeat(times).into_bytes());
            }
            10 => {
                let oddity = *ODDITIES.choose(&mut self.random).expect("oddities");
                input.splice(start..start, oddity.bytes());
            }
            11 => {
                let byte = self.random.random_range(b' '..=b'~');
                let place = if self.random.random_bool(0.5) { start..end } else { start..start };
                input.splice(place, [byte]);
            }
            12 => {
                // A link of a chain, many times: `a.b.b.b`, `1+1+1`, `a,b,b,b`.
                let link = [
                    "+1",
                    ".a",
                    "[0]",
                    "()",
                    ",",
                    ",1",
                    "**1",
                    "-",
                    " for a in b",
                    "{{a}}",
                    ".0",
                    "\n",
                    "=",
                    ":",
                ];
                let link = *link.choose(&mut self.random).expect("links");
                let times = self.times().min(LARGEST / link.len());
                input.splice(end..end, link.repeat(times).into_bytes());
            }
            _ => {
                let (other_start, other_end) = self.token(input);
                let other = input[other_start..other_end].to_vec();
                input.splice(start..end, other);
            }
        }
    }

    fn change_bytes(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len());
        match self.below(10) {
            0 if !input.is_empty() => input[at] ^= 1 << self.below(8),
            1 if !input.is_empty() => input[at] = self.random.random(),
            2..=4 => {
                let width = *[1_usize, 2, 4, 8].choose(&mut self.random).expect("widths");
                let edges = [
                    0,
                    1,
                    2,
                    7,
                    16,
                    127,
                    128,
                    255,
                    256,
                    0x7fff,
                    0x8000,
                    0xffff,
                    0x1_0000,
                    0x7fff_ffff,
                    0x8000_0000,
                    0xffff_ffff,
                    1 << 40,
                    u64::MAX / 2,
                    u64::MAX - 1,
                    u64::MAX,
                ];
                let number = if self.random.random_bool(0.7) {
                    *edges.choose(&mut self.random).expect("edges")
                } else {
                    self.random.random_range(0..2000)
                };
                let big = number.to_be_bytes();
                let little = number.to_le_bytes();
                let bytes =
                    if self.random.random_bool(0.5) { &big[8 - width..] } else { &little[..width] };
                let end = (at + width).min(input.len());
                input.splice(at..end, bytes.iter().copied());
            }
            5 => {
                let end = at + self.times().min(input.len() - at);
                input.drain(at..end);
            }
            6 => {
                let end = (at + 1 + self.below(64)).min(input.len());
                let times = self.times().min(LARGEST / (end - at).max(1));
                let repeated = input[at..end].repeat(times);
                input.splice(at..at, repeated);
            }
            7 => {
                let other = self.pick();
                let other = &self.corpus[other];
                let from =
                    if other.is_empty() { 0 } else { self.random.random_range(0..other.len()) };
                let length = self
                    .random
                    .random_range(0..=other.len() - from)
                    .min(1 + self.random.random_range(0..2000));
                let part = other[from..from + length].to_vec();
                let end =
                    if self.random.random_bool(0.5) { (at + length).min(input.len()) } else { at };
                input.splice(at..end, part);
            }
            8 => input.truncate(at),
            _ => {
                let bytes: Vec<u8> = (0..=self.below(8)).map(|_| self.random.random()).collect();
                input.splice(at..at, bytes);
            }
        }
    }
}
