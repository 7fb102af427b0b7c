//! Text that arrives in pieces cut anywhere, also within a character.

/// The bytes are not UTF-8, whatever may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InvalidUtf8;

/// Text that is still arriving. Each byte is checked when it comes, once, so that a peer that sends
/// nonsense is told at the first byte of it and the whole needs no second look.
#[derive(Debug, Default)]
pub(super) struct Text {
    whole: String,
    /// The beginning of a character whose end has not come.
    cut: [u8; MAX_CHAR],
    cut_len: usize,
}

impl Text {
    /// Adds the next bytes.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<(), InvalidUtf8> {
        while self.cut_len > 0 {
            let Some((&byte, rest)) = bytes.split_first() else { return Ok(()) };
            bytes = rest;
            self.cut[self.cut_len] = byte;
            self.cut_len += 1;
            let (valid, cut) = split_cut(&self.cut[..self.cut_len])?;
            if cut.is_empty() {
                self.whole.push_str(valid);
                self.cut_len = 0;
            }
        }
        let (valid, cut) = split_cut(bytes)?;
        self.whole.push_str(valid);
        self.cut[..cut.len()].copy_from_slice(cut);
        self.cut_len = cut.len();
        Ok(())
    }

    /// How many bytes have come.
    pub(super) fn len(&self) -> usize {
        self.whole.len() + self.cut_len
    }

    /// The text, if it does not end within a character.
    pub(super) fn finish(self) -> Result<String, InvalidUtf8> {
        if self.cut_len == 0 { Ok(self.whole) } else { Err(InvalidUtf8) }
    }
}

/// Splits off the last character if it is cut short and can still become one.
fn split_cut(bytes: &[u8]) -> Result<(&str, &[u8]), InvalidUtf8> {
    match str::from_utf8(bytes) {
        Ok(text) => Ok((text, &[])),
        Err(error) if error.error_len().is_some() => Err(InvalidUtf8),
        Err(error) => {
            let (valid, cut) = bytes.split_at(error.valid_up_to());
            Ok((str::from_utf8(valid).map_err(|_| InvalidUtf8)?, cut))
        }
    }
}

/// No character is longer, and of the longest all but the last byte may wait.
const MAX_CHAR: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn in_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<String, InvalidUtf8> {
        let mut text = Text::default();
        for piece in pieces {
            text.push(piece)?;
        }
        text.finish()
    }

    #[test]
    fn text_is_the_same_however_it_is_cut() {
        let whole = "κόσμε, 😀 and ߿ࠀ\u{10ffff}";
        for size in 1..whole.len() {
            assert_eq!(in_pieces(whole.as_bytes().chunks(size)).as_deref(), Ok(whole), "{size}");
        }
    }

    #[test]
    fn nonsense_is_refused_at_its_first_byte() {
        // Beyond U+10FFFF, a surrogate, overlong forms, a lone continuation byte, a start without one.
        let nonsense: [&[u8]; 6] =
            [b"\xf4\x90", b"\xed\xa0", b"\xc0", b"\xe0\x80", b"\x80", b"\xc3a"];
        for bytes in nonsense {
            let mut text = Text::default();
            let (last, first) = bytes.split_last().expect("not empty");
            assert_eq!(text.push(b"ok "), Ok(()));
            assert_eq!(text.push(first), Ok(()), "{bytes:x?}");
            assert_eq!(text.push(&[*last]), Err(InvalidUtf8), "{bytes:x?}");
        }
    }

    #[test]
    fn a_text_that_ends_within_a_character_is_refused() {
        assert_eq!(in_pieces([&b"\xf0\x9f\x98"[..]]), Err(InvalidUtf8));
    }
}
