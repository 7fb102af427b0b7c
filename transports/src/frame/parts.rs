//! A message in its parts, for its way to another node.

use bytes::Bytes;

use super::{Form, Message, VOLATILE};

/// What a [`Message`] is made of, without framing and sharing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    /// UTF-8 if it is a text.
    pub(crate) bytes: Bytes,
    pub(crate) kind: Kind,
    pub(crate) is_volatile: bool,
    pub(crate) tries: u8,
    pub(crate) number: u64,
}

/// The kind of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    /// A text with a placeholder at this offset.
    Placeholder(u32),
    Binary,
    NumberedBinary,
}

impl Message {
    /// Returns the parts. Copies only if the message has a start of its own.
    pub(crate) fn to_parts(&self) -> Parts {
        let bytes = match &self.start {
            Some(_) => self.to_bytes(),
            None => self.bytes.slice(usize::from(self.header)..),
        };
        let kind = match self.form {
            Form::Text => Kind::Text,
            Form::Placeholder | Form::PositionPlaceholder => Kind::Placeholder(self.placeholder),
            Form::Binary => Kind::Binary,
            Form::NumberedBinary => Kind::NumberedBinary,
        };
        let (is_volatile, tries, number) = (self.is_volatile(), self.tries, self.number);
        Parts { bytes, kind, is_volatile, tries, number }
    }

    /// Puts a message together. Copies the bytes, which may be a small part of a large allocation. `None` if they are
    /// not what their kind demands.
    pub(crate) fn from_parts(parts: &Parts) -> Option<Self> {
        let bytes = Bytes::copy_from_slice(&parts.bytes);
        let is_text = || str::from_utf8(&bytes).is_ok();
        let (form, placeholder) = match parts.kind {
            Kind::Text => is_text().then_some((Form::Text, 0))?,
            Kind::Placeholder(at) => {
                let form = Form::of_placeholder(&bytes, at as usize)?;
                is_text().then_some((form, at))?
            }
            Kind::Binary => (Form::Binary, 0),
            Kind::NumberedBinary => (Form::NumberedBinary, 0),
        };
        let flags = if parts.is_volatile { VOLATILE } else { 0 };
        let (tries, number) = (parts.tries, parts.number);
        Some(Self { flags, tries, placeholder, number, ..Self::new(bytes, form) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_put_together_as_it_was() {
        let text = || Message::with_placeholder("[null,\"é\"]", 1);
        for message in [
            Message::text("é"),
            text(),
            text().for_many(),
            text().for_many().with_start("[12", 5),
            Message::binary("\u{0}x"),
            Message::binary("x").numbered().for_many(),
            text().volatile(),
            Message::with_placeholder("[\"p:E.1\",1]", 1),
        ] {
            let mut again = Message::from_parts(&message.to_parts()).expect("sound parts");
            assert_eq!(again.to_parts(), message.to_parts());
            let mut message = message;
            for number in [0, 7, u64::MAX] {
                message.set_number(number);
                again.set_number(number);
                assert_eq!(again.to_bytes(), message.to_bytes());
            }
            assert_eq!(again.takes_number(), message.takes_number());
        }
    }

    #[test]
    fn a_text_that_is_none_is_refused() {
        let parts = |bytes: &'static [u8], kind| Parts {
            bytes: Bytes::from_static(bytes),
            kind,
            is_volatile: false,
            tries: 0,
            number: 0,
        };
        assert_eq!(Message::from_parts(&parts(b"\xff", Kind::Text)), None);
        for (bytes, at) in [(&b"null\xff"[..], 0), (b"null", 1), (b"null", u32::MAX), (b"", 0)] {
            assert_eq!(Message::from_parts(&parts(bytes, Kind::Placeholder(at))), None);
        }
        assert!(Message::from_parts(&parts(b"\xff", Kind::Binary)).is_some());
    }
}
