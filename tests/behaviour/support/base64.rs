//! Base64 with the standard alphabet and padding, as used for binary messages over long poll.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut three = [0; 3];
        three[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for place in 0..4 {
            let sextet = (bits >> (18 - 6 * place)) & 63;
            text.push(if place <= chunk.len() { ALPHABET[sextet as usize] as char } else { '=' });
        }
    }
    text
}

pub(crate) fn decode(text: &str) -> Vec<u8> {
    assert_eq!(text.len() % 4, 0, "base64 without padding: {text}");
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for chunk in text.as_bytes().chunks(4) {
        let padding = chunk.iter().filter(|&&letter| letter == b'=').count();
        let bits = chunk.iter().fold(0_u32, |bits, letter| {
            let sextet = ALPHABET.iter().position(|known| known == letter);
            assert!(sextet.is_some() || *letter == b'=', "not base64: {text}");
            bits << 6 | sextet.unwrap_or(0) as u32
        });
        bytes.extend_from_slice(&bits.to_be_bytes()[1..4 - padding]);
    }
    bytes
}

#[test]
fn known_values_encode_and_decode() {
    for (plain, encoded) in
        [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
    {
        assert_eq!(encode(plain.as_bytes()), encoded);
        assert_eq!(decode(encoded), plain.as_bytes());
    }
}
