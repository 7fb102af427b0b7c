//! A page without Yjs: a textarea. The channel keeps a replica of the document in its place.
//!
//! The replica changes with the edits of the page, and takes in what others have written with the reply to each. So it
//! is what the page had when it made its next edit, if that waits for the reply.

use serde::Deserialize;
use yrs::updates::decoder::Decode;
use yrs::{Doc, GetString, OffsetKind, Options, ReadTxn, Text, Transact, Update};

use super::Letter;

/// One difference. Offsets and lengths are in UTF-16 code units, as in JavaScript.
#[derive(Deserialize)]
pub struct Edit {
    /// 1, 2, … An edit that is sent again, since its reply was lost, has its number and is not made again.
    pub number: u64,
    pub at: u32,
    pub delete: u32,
    pub insert: String,
}

pub struct Replica {
    doc: Doc,
    edits: u64,
}

impl Replica {
    /// An empty one: the first edit of a page is an empty one, too, and brings the text.
    pub fn new() -> Self {
        Self { doc: new_doc(), edits: 0 }
    }

    /// Makes an edit here and in the document. Returns the update for others, if it changes anything.
    pub fn edit(&mut self, edit: &Edit, letter: &Letter) -> Result<Option<Vec<u8>>, &'static str> {
        if edit.number == self.edits {
            return Ok(None);
        }
        if edit.number.checked_sub(1) != Some(self.edits) {
            return Err("not the next edit");
        }
        self.edits = edit.number;
        let Some(update) = self.change(edit)? else { return Ok(None) };
        if let Err(refused) = letter.apply(&update) {
            self.doc = new_doc(); // without the edit
            return Err(refused);
        }
        Ok(Some(update))
    }

    fn change(&self, edit: &Edit) -> Result<Option<Vec<u8>>, &'static str> {
        let shown = self.text();
        let end = edit.at.checked_add(edit.delete).ok_or("not an edit")?;
        if !is_boundary(&shown, edit.at) || !is_boundary(&shown, end) {
            return Err("not an edit");
        }
        if edit.delete == 0 && edit.insert.is_empty() {
            return Ok(None);
        }
        let text = self.doc.get_or_insert_text("text");
        let mut change = self.doc.transact_mut();
        text.remove_range(&mut change, edit.at, edit.delete);
        text.insert(&mut change, edit.at, &edit.insert);
        Ok(Some(change.encode_update_v1()))
    }

    /// Takes in what others have written. Returns the text.
    pub fn catch_up(&self, letter: &Letter) -> Result<String, &'static str> {
        let known = self.doc.transact().state_vector();
        let update = Update::decode_v1(&letter.since(&known)).map_err(|_| "not an update")?;
        self.doc.transact_mut().apply_update(update).map_err(|_| "not an update")?;
        Ok(self.text())
    }

    fn text(&self) -> String {
        let text = self.doc.get_or_insert_text("text");
        text.get_string(&self.doc.transact())
    }
}

fn new_doc() -> Doc {
    Doc::with_options(Options { offset_kind: OffsetKind::Utf16, ..Options::default() })
}

/// Whether an offset lies in the text, and not within a character.
fn is_boundary(text: &str, offset: u32) -> bool {
    let mut left = u64::from(offset);
    for character in text.chars() {
        match left.checked_sub(character.len_utf16() as u64) {
            Some(rest) if left > 0 => left = rest,
            _ => break,
        }
    }
    left == 0
}

#[cfg(test)]
mod tests;
