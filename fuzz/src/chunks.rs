//! The input of the WebSocket targets: how the bytes are cut, and the bytes.
//!
//! The first byte says in its low half how many sizes follow, and its high half are the flags of
//! the target; then come the sizes, each a byte; the rest is what the client sends.

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

    /// The bytes in their chunks. A turn of nothing is an empty chunk.
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

/// How much passes next: the sizes, over and over. A size of 0 is a turn in which nothing does, and
/// of two in a row the second is 1, so that it all comes to an end. Without sizes there is no bound.
#[derive(Clone)]
pub(crate) struct Turns {
    sizes: Vec<u8>,
    next: usize,
    paused: bool,
}

impl Turns {
    /// `None` where nothing passes.
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
    fn the_sizes_are_taken_over_and_over() {
        assert_eq!(chunks(b"\x02\x01\x02abcdefg"), [&b"a"[..], b"bc", b"d", b"ef", b"g"]);
        assert_eq!(chunks(b"\x00abc"), [b"abc"]);
    }

    #[test]
    fn nothing_but_zeros_comes_to_an_end() {
        assert_eq!(chunks(b"\x01\x00ab"), [&b""[..], b"a", b"", b"b"]);
    }
}
