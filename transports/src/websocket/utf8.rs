//! Incremental UTF-8 validation of text that may be cut anywhere, even within a character.

/// The bytes are not UTF-8, regardless of what may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InvalidUtf8;

/// Text that is still arriving. Each byte is checked once, when it arrives, so that invalid text is
/// refused at its first invalid byte.
#[derive(Debug, Default)]
pub(super) struct Text {
    complete: String,
    /// The beginning of a character whose end has not arrived.
    cut: [u8; MAX_CHAR],
    cut_len: usize,
}

impl Text {
    /// Appends the next bytes.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<(), InvalidUtf8> {
        while self.cut_len > 0 {
            let Some((&byte, rest)) = bytes.split_first() else { return Ok(()) };
            bytes = rest;
            self.cut[self.cut_len] = byte;
            self.cut_len += 1;
            let (valid, cut) = split_cut(&self.cut[..self.cut_len])?;
            if cut.is_empty() {
                self.complete.push_str(valid);
                self.cut_len = 0;
            }
        }
        let (valid, cut) = split_cut(bytes)?;
        self.complete.push_str(valid);
        self.cut[..cut.len()].copy_from_slice(cut);
        self.cut_len = cut.len();
        Ok(())
    }

    /// Returns how many bytes have arrived.
    pub(super) fn len(&self) -> usize {
        self.complete.len() + self.cut_len
    }

    /// Returns how many bytes are allocated.
    pub(super) fn capacity(&self) -> usize {
        self.complete.capacity()
    }

    /// Returns the text, unless it ends within a character.
    pub(super) fn finish(self) -> Result<String, InvalidUtf8> {
        if self.cut_len == 0 { Ok(self.complete) } else { Err(InvalidUtf8) }
    }
}

/// Splits off the last character if it is incomplete but valid so far.
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

/// The length of the longest character in UTF-8.
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
    fn text_is_the_same_however_the_bytes_are_cut() {
        let whole = "κόσμε, 😀 and ߿ࠀ\u{10ffff}";
        for size in 1..whole.len() {
            assert_eq!(in_pieces(whole.as_bytes().chunks(size)).as_deref(), Ok(whole), "{size}");
        }
    }

    #[test]
    fn invalid_text_is_refused_at_its_first_invalid_byte() {
        // Beyond U+10FFFF, a surrogate, overlong forms, a lone continuation byte, a start without one.
        let invalid: [&[u8]; 6] =
            [b"\xf4\x90", b"\xed\xa0", b"\xc0", b"\xe0\x80", b"\x80", b"\xc3a"];
        for bytes in invalid {
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
