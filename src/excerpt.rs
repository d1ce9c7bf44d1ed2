//! What came from outside, as an error shows it: on one line, and no more of it than helps. A
//! variable may hold a binary file, and a config's key a page of text.

use std::borrow::Cow;

/// Most characters of a value.
const QUOTED: usize = 160;
/// Most characters of a whole message, the valid names that it lists included.
const LINE: usize = 1200;

/// A value in quotes, as `{:?}` shows it, the middle of a long one left out.
pub(crate) fn quoted(text: &str) -> String {
    format!("{:?}", shortened(text, QUOTED))
}

/// A message on one line, the middle of a long one left out.
pub(crate) fn line(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(4 * LINE));
    for character in shortened(text, LINE).chars() {
        match character {
            it if it.is_control() || matches!(it, '\u{2028}' | '\u{2029}') => {
                line.extend(it.escape_default());
            }
            it => line.push(it),
        }
    }
    // What was escaped has grown.
    shortened(&line, LINE).into_owned()
}

fn shortened(text: &str, most: usize) -> Cow<'_, str> {
    // Bytes are at least as many as characters, and quickly counted.
    if text.len() <= most || text.chars().count() <= most {
        return Cow::Borrowed(text);
    }
    let place =
        |characters: usize| text.char_indices().nth(characters).map_or(text.len(), |(at, _)| at);
    let half = most / 2;
    let tail = text.char_indices().rev().nth(half - 1).map_or(0, |(at, _)| at);
    Cow::Owned(format!("{}…{}", &text[..place(half)], &text[tail..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_short_and_plain_stays_as_it_is() {
        assert_eq!(quoted("it's é"), "\"it's é\"");
        assert_eq!(line("a.yaml:3: `x` is wrong"), "a.yaml:3: `x` is wrong");
    }

    #[test]
    fn a_message_is_one_line_of_bounded_length() {
        assert_eq!(line("a\nb\tc\u{0}\u{85}\u{2028}"), "a\\nb\\tc\\u{0}\\u{85}\\u{2028}");
        let long = "é".repeat(100_000);
        assert_eq!(line(&long).chars().count(), LINE + 1);
        assert_eq!(line(&"\u{1}".repeat(100_000)).chars().count(), LINE + 1);
        assert_eq!(quoted(&long).chars().count(), QUOTED + 3);
        assert!(line(&format!("begin{long}end")).ends_with("éend"));
    }
}
