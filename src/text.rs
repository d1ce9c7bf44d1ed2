//! Text as it comes: with a byte order mark, or in another encoding than UTF-8, which is named with
//! its line.

/// The byte order mark of UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// Text that is not UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is not UTF-8 at line {line} ({guess}); save it as UTF-8")]
pub(crate) struct NotUtf8 {
    /// Counted from 1.
    pub line: usize,
    pub guess: &'static str,
}

/// The text of a file, without its byte order mark.
pub(crate) fn decode(bytes: &[u8]) -> Result<&str, NotUtf8> {
    let bytes = without_mark(bytes);
    if let Some(guess) = wide(bytes) {
        return Err(NotUtf8 { line: 1, guess });
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].split(|it| *it == b'\n').count();
        NotUtf8 { line, guess: guess(bytes) }
    })
}

/// Bytes without the mark that Windows puts before UTF-8.
pub(crate) fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(MARK).unwrap_or(bytes)
}

/// Whether bytes are UTF-16 or UTF-32: such a text has marks, or a zero byte beside every plain
/// letter.
pub(crate) fn wide(bytes: &[u8]) -> Option<&'static str> {
    let start = &bytes[..bytes.len().min(512)];
    let zeros = start.split(|it| *it == 0).count() - 1;
    let marked = start.starts_with(&[0xff, 0xfe]) || start.starts_with(&[0xfe, 0xff]);
    (marked || zeros > 0 && zeros * 4 >= start.len())
        .then_some("it looks like UTF-16, which Windows calls Unicode")
}

/// What the bytes of a text most likely are, that are not UTF-8.
pub(crate) fn guess(bytes: &[u8]) -> &'static str {
    let (mut pairs, mut alone) = (0, 0);
    let mut rest = bytes;
    while let [first, after @ ..] = rest {
        rest = after;
        if *first < 0x80 {
            continue;
        }
        match after {
            [second, after @ ..]
                if (0x81..=0xfe).contains(first)
                    && (0x40..=0xfe).contains(second)
                    && *second != 0x7f =>
            {
                // In one-byte encodings a letter with an accent stands among plain ones.
                if *second >= 0x80 {
                    pairs += 1;
                } else {
                    alone += 1;
                }
                rest = after;
            }
            _ => alone += 1,
        }
    }
    if pairs > alone {
        "it looks like GBK, or another of the East Asian encodings"
    } else {
        "it looks like Latin-1, or the like"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_no_part_of_the_text() {
        assert_eq!(decode(b"\xef\xbb\xbfroad\n"), Ok("road\n"));
        assert_eq!(decode("straße\n".as_bytes()), Ok("straße\n"));
    }

    #[test]
    fn other_encodings_are_named_with_their_line() {
        let told = |bytes: &[u8]| decode(bytes).expect_err("no UTF-8").to_string();
        // 道路, 汽车.
        assert!(
            told(b"road\n\xb5\xc0\xc2\xb7\n\xc6\xfb\xb3\xb5\n")
                .starts_with("it is not UTF-8 at line 2 (it looks like GBK")
        );
        assert!(
            told(b"a\nb\ncaf\xe9 au lait\n")
                .starts_with("it is not UTF-8 at line 3 (it looks like Latin-1")
        );
        assert!(told(b"\xff\xfer\0o\0a\0d\0").contains("line 1 (it looks like UTF-16"));
        assert!(told(b"r\0o\0a\0d\0\n\0").contains("line 1 (it looks like UTF-16"));
    }
}
