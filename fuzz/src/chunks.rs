//! The input of the WebSocket targets: how to split the client's bytes, and the bytes.
//!
//! The low half of the first byte is the number of sizes, its high half holds flags of the target.
//! The sizes follow, one byte each; the rest is sent by the client.

#[derive(Clone, Copy)]
pub(crate) struct Input<'a> {
    pub(crate) flags: u8,
    pub(crate) sizes: &'a [u8],
    pub(crate) wire: &'a [u8],
}

impl<'a> Input<'a> {
    pub(crate) fn parse(data: &'a [u8]) -> Self {
        let (&first, rest) = data.split_first().unwrap_or((&0, data));
        let (sizes, wire) = rest.split_at(usize::from(first & 0x0f).min(rest.len()));
        Self { flags: first & 0xf0, sizes, wire }
    }

    pub(crate) fn turns(&self) -> Turns {
        Turns { sizes: self.sizes.to_vec(), next: 0, paused: false }
    }

    /// Splits the bytes into chunks. A turn in which nothing passes is an empty chunk.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (mut turns, mut rest) = (self.turns(), self.wire);
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let (chunk, after) = rest.split_at(turns.next().unwrap_or(0).min(rest.len()));
            rest = after;
            Some(chunk)
        })
    }
}

/// The numbers of bytes that pass, from the sizes in a cycle. A size of 0 is a turn in which
/// nothing passes; the second of two in a row counts as 1, so that the input always ends. Without
/// sizes there is no limit.
#[derive(Clone)]
pub(crate) struct Turns {
    sizes: Vec<u8>,
    next: usize,
    paused: bool,
}

impl Turns {
    /// Returns the next size, or `None` if nothing passes.
    pub(crate) fn next(&mut self) -> Option<usize> {
        if self.sizes.is_empty() {
            return Some(usize::MAX);
        }
        let size = usize::from(self.sizes[self.next % self.sizes.len()]);
        self.next += 1;
        self.paused = size == 0 && !self.paused;
        (!self.paused).then_some(size.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(data: &[u8]) -> Vec<&[u8]> {
        Input::parse(data).chunks().collect()
    }

    #[test]
    fn the_sizes_repeat() {
        assert_eq!(chunks(b"\x02\x01\x02abcdefg"), [&b"a"[..], b"bc", b"d", b"ef", b"g"]);
        assert_eq!(chunks(b"\x00abc"), [b"abc"]);
    }

    #[test]
    fn an_input_of_zero_sizes_ends() {
        assert_eq!(chunks(b"\x01\x00ab"), [&b""[..], b"a", b"", b"b"]);
    }
}
