//! An exception in the form in which Flink's Java clients read one: an object of theirs, serialised by Java, in Base64.
//!
//! The form is that of Java's *Object Serialization Stream Protocol*, version 5. The object is Flink's `SerializedThrowable`,
//! which stands for exceptions whose class a client need not have. Clients that are not written in Java read `class` and
//! `stack-trace` beside it.

use serde_json::{Value, json};

/// The class, and the versions of it and of the classes that it extends, which are a part of their form.
const THROWABLE: (&str, i64) = ("org.apache.flink.util.SerializedThrowable", 7_284_183_123_441_947_635);
const EXCEPTION: (&str, i64) = ("java.lang.Exception", -3_387_516_993_124_229_948);
const ROOT: (&str, i64) = ("java.lang.Throwable", -3_042_686_055_658_047_285);

/// Bytes of a text; its length has 16 bits.
const TEXT_BYTES_MAX: usize = 60_000;

// The marks of the protocol.
const HEADER: [u8; 4] = [0xac, 0xed, 0x00, 0x05];
const NULL: u8 = 0x70;
const CLASS: u8 = 0x72;
const OBJECT: u8 = 0x73;
const STRING: u8 = 0x74;
const END: u8 = 0x78;
const SERIALIZABLE: u8 = 0x02;
const WRITES_MORE: u8 = 0x01;

/// `{class, stack-trace, serialized-throwable}`. `trace` begins with the class and the message.
pub(super) fn throwable(class: &str, trace: &str) -> Value {
    let first = trace.lines().next().unwrap_or_default();
    // Java puts the class in front again.
    let message = first.strip_prefix(class).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(first);
    json!({
        "class": class,
        "stack-trace": trace,
        "serialized-throwable": base64(&serialized(class, message, trace)),
    })
}

fn serialized(class: &str, message: &str, trace: &str) -> Vec<u8> {
    let mut out = HEADER.to_vec();
    out.push(OBJECT);
    describe(&mut out, THROWABLE, SERIALIZABLE, &["fullStringifiedStackTrace", "originalErrorClassName"]);
    describe(&mut out, EXCEPTION, SERIALIZABLE, &[]);
    describe(&mut out, ROOT, SERIALIZABLE | WRITES_MORE, &["detailMessage"]);
    out.push(NULL);
    // The fields, of the class that is extended first.
    string(&mut out, message);
    out.push(END);
    string(&mut out, trace);
    string(&mut out, class);
    out
}

/// A class whose fields are texts; fields that it does not name are null.
fn describe(out: &mut Vec<u8>, (name, version): (&str, i64), flags: u8, fields: &[&str]) {
    out.push(CLASS);
    text(out, name);
    out.extend_from_slice(&version.to_be_bytes());
    out.push(flags);
    out.extend_from_slice(&(fields.len() as u16).to_be_bytes());
    for field in fields {
        out.push(b'L');
        text(out, field);
        string(out, "Ljava/lang/String;");
    }
    out.push(END);
}

fn string(out: &mut Vec<u8>, value: &str) {
    out.push(STRING);
    text(out, value);
}

/// A text with its length in front. Java writes zeros and what lies beyond 16 bits in ways of its own: here they become
/// question marks.
fn text(out: &mut Vec<u8>, value: &str) {
    let plain = |letter: char| if letter == '\0' || letter > '\u{ffff}' { '?' } else { letter };
    let mut value: String = value.chars().map(plain).collect();
    value.truncate(value.floor_char_boundary(TEXT_BYTES_MAX));
    out.extend_from_slice(&(value.len() as u16).to_be_bytes());
    out.extend_from_slice(value.as_bytes());
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |index: usize| u32::from(three.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place)) as usize & 63];
            out.push(if place <= three.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        let samples = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (plain, encoded) in samples {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }

    #[test]
    fn texts_fit_and_have_nothing_that_java_writes_in_another_way() {
        let bytes = serialized("flott.Io", "a\0b\u{1f600}", &"\u{20ac}".repeat(TEXT_BYTES_MAX));
        assert!(bytes.starts_with(&HEADER) && bytes.windows(4).any(|four| four == b"a?b?"));
        assert!(bytes.len() < 2 * TEXT_BYTES_MAX);
    }
}
