//! The string of an event: two words, cloned without allocating.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

/// Set in [`Text::tagged_length`] when the bytes belong to an `Arc<str>`. No `str` is longer than `isize::MAX` bytes, so
/// the bit is free.
const SHARED: usize = 1 << (usize::BITS - 1);

/// An immutable string that either points into static text or shares ownership of an `Arc<str>`.
///
/// A clone copies two words (and counts up, if shared); it never allocates. It derefs to `str`, and compares, hashes,
/// prints and serialises as that `str`. Generated events hold static text; deserialised ones hold shared text.
pub struct Text {
    /// First byte: of a `'static` str, or of the str inside an `Arc<str>` made by `Arc::into_raw`.
    start: NonNull<u8>,
    /// Length in bytes, and [`SHARED`].
    tagged_length: usize,
}

// SAFETY: both `&'static str` and `Arc<str>` are `Send` and `Sync`, and a `Text` is one of the two.
unsafe impl Send for Text {}
// SAFETY: as above; nothing is ever written through the pointer.
unsafe impl Sync for Text {}

impl Text {
    /// The empty text.
    pub const EMPTY: Text = Text::from_static("");

    /// A text over static memory: no count, nothing to free.
    #[inline]
    pub const fn from_static(text: &'static str) -> Self {
        // SAFETY: a reference is never null.
        let start = unsafe { NonNull::new_unchecked(text.as_ptr().cast_mut()) };
        Self { start, tagged_length: text.len() }
    }

    #[inline]
    const fn length(&self) -> usize {
        self.tagged_length & !SHARED
    }

    #[inline]
    const fn is_shared(&self) -> bool {
        self.tagged_length & SHARED != 0
    }

    /// The string itself.
    #[inline]
    pub const fn as_str(&self) -> &str {
        // SAFETY: `start` and the length are those of a valid `str` that outlives `self` (static, or kept by our count).
        unsafe {
            std::str::from_utf8_unchecked(std::slice::from_raw_parts(self.start.as_ptr(), self.length()))
        }
    }

    /// The pointer `Arc::into_raw` gave when this text was made. Only for shared texts.
    fn shared_pointer(&self) -> *const str {
        debug_assert!(self.is_shared());
        ptr::slice_from_raw_parts(self.start.as_ptr().cast_const(), self.length()) as *const str
    }

    #[cold]
    fn count_up(&self) {
        // SAFETY: the pointer came from `Arc::into_raw` and our own count keeps it alive.
        unsafe { Arc::increment_strong_count(self.shared_pointer()) }
    }

    #[cold]
    fn count_down(&mut self) {
        // SAFETY: the pointer came from `Arc::into_raw`; this gives back the count that `self` held, once, in `drop`.
        unsafe { Arc::decrement_strong_count(self.shared_pointer()) }
    }
}

impl Clone for Text {
    #[inline]
    fn clone(&self) -> Self {
        if self.is_shared() {
            self.count_up();
        }
        Self { start: self.start, tagged_length: self.tagged_length }
    }
}

impl Drop for Text {
    #[inline]
    fn drop(&mut self) {
        if self.is_shared() {
            self.count_down();
        }
    }
}

impl Default for Text {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl Deref for Text {
    type Target = str;

    #[inline]
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self
    }
}

impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        self
    }
}

impl From<Arc<str>> for Text {
    fn from(text: Arc<str>) -> Self {
        let length = text.len();
        let start = ManuallyDrop::new(text);
        // SAFETY: `Arc::as_ptr` is never null, and equals what `Arc::into_raw` would give; the count is kept.
        let start = unsafe { NonNull::new_unchecked(Arc::as_ptr(&start).cast_mut().cast::<u8>()) };
        Self { start, tagged_length: length | SHARED }
    }
}

impl From<&str> for Text {
    /// Copies; the empty string allocates nothing.
    fn from(text: &str) -> Self {
        if text.is_empty() { Self::EMPTY } else { Self::from(Arc::<str>::from(text)) }
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl PartialEq for Text {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        // The generator's tables make equal texts that are the same memory.
        (self.start == other.start && self.length() == other.length()) || self.as_str() == other.as_str()
    }
}

impl Eq for Text {}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), formatter)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), formatter)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl Visitor<'_> for TextVisitor {
            type Value = Text;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text::from(text))
            }
        }

        deserializer.deserialize_str(TextVisitor)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn behaves_as_the_string_it_holds() {
        let fixed = Text::from_static("channel-7");
        let shared = Text::from("channel-7".to_string());
        assert_eq!(fixed, shared);
        assert_eq!(fixed, "channel-7");
        assert_ne!(fixed, Text::from("channel-8"));
        assert_ne!(fixed, Text::from_static("channel-"));
        let later = Text::from("channel-8");
        assert!(fixed < later);
        assert_eq!(format!("{fixed} {shared:?}"), "channel-7 \"channel-7\"");
        assert_eq!(fixed.split('-').next_back(), Some("7"));

        let mut counts = HashMap::new();
        *counts.entry(fixed).or_insert(0) += 1;
        *counts.entry(shared).or_insert(0) += 1;
        assert_eq!(counts.get("channel-7"), Some(&2));
        assert_eq!(counts.hasher().hash_one("é"), counts.hasher().hash_one(Text::from("é")));
    }

    #[test]
    fn clones_share_one_allocation_and_free_it_once() {
        let owner: Arc<str> = Arc::from("held");
        let text = Text::from(owner.clone());
        let clones: Vec<Text> = std::iter::repeat_n(text.clone(), 9).collect();
        assert!(clones.iter().all(|clone| clone.as_ptr() == owner.as_ptr()));
        assert_eq!(Arc::strong_count(&owner), 11);
        std::thread::spawn(move || drop(clones)).join().unwrap();
        assert_eq!(Arc::strong_count(&owner), 2);
        drop(text);
        assert_eq!(Arc::strong_count(&owner), 1);
    }

    #[test]
    fn the_empty_text_is_static() {
        assert_eq!(Text::from("").as_ptr(), Text::EMPTY.as_ptr());
        assert_eq!(Text::default().len(), 0);
        assert!(Text::from(Arc::<str>::from("")).is_empty());
    }

    #[test]
    fn serialises_as_a_string() {
        let text = Text::from("a \"quoted\" \u{20ac}");
        let json = serde_json::to_string(&text).unwrap();
        assert_eq!(json, r#""a \"quoted\" €""#);
        assert_eq!(serde_json::from_str::<Text>(&json).unwrap(), text);
        let bytes = postcard::to_stdvec(&text).unwrap();
        assert_eq!(postcard::from_bytes::<Text>(&bytes).unwrap(), text);
        assert!(serde_json::from_str::<Text>("7").is_err());
    }
}
