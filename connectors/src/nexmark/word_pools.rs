//! The strings of all events: made once per process, then only pointed at.
//!
//! Where the Java generator draws letter by letter, an event here takes a random piece of a random text, which has the
//! same distribution and costs two draws.

use std::hint::select_unpredictable;
use std::sync::OnceLock;

use super::random::{Random, below};
use super::text::Text;

/// Length of the text that `extra` is cut from, as in Java.
pub(super) const FILLER_BYTES: usize = 1 << 20;
/// Length of the text that item names and descriptions are cut from.
const PROSE_BYTES: usize = 1 << 20;
/// Different e-mail addresses, and credit card numbers.
const CONTACTS: u32 = 1 << 16;

/// Shortest random string.
const STRING_BYTES_MIN: u32 = 3;
/// One character in so many of a random string is a separator.
const SEPARATOR_EVERY: u32 = 13;

const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];
const CITIES: [&str; 10] = [
    "Phoenix",
    "Los Angeles",
    "San Francisco",
    "Boise",
    "Portland",
    "Bend",
    "Redmond",
    "Seattle",
    "Kent",
    "Cheyenne",
];
const FIRST_NAMES: [&str; 11] =
    ["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"];
const LAST_NAMES: [&str; 9] =
    ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"];

/// The channels that half of the bids come through.
pub(super) const HOT_CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];
/// The other channels, `channel-0` and so on.
pub(super) const SMALL_CHANNELS: u32 = 10_000;

const CARD_BYTES: usize = "0000 0000 0000 0000".len();
const CARD_GROUP_BYTES: usize = "0000 ".len();

/// All text, one after the other; pieces are cut out by position.
pub(super) struct WordPools {
    /// ASCII and nothing else: any range of it is a `str`.
    bytes: &'static [u8],
    filler_start: usize,
    prose_start: usize,
    card_start: usize,
    names: Vec<Piece>,
    emails: Vec<Piece>,
    /// First the hot ones.
    channels: Vec<Channel>,
}

/// Position of a piece of text: 8 bytes where a [`Text`] has 16, as the tables are read at random.
#[derive(Clone, Copy)]
struct Piece {
    start: u32,
    length: u32,
}

/// A channel's name and url, which follow each other.
#[derive(Clone, Copy)]
struct Channel {
    start: u32,
    name_length: u16,
    url_length: u16,
}

impl WordPools {
    /// The pools of this process. The first call makes them, 4 MiB of text.
    pub fn shared() -> &'static Self {
        static POOLS: OnceLock<WordPools> = OnceLock::new();
        POOLS.get_or_init(Builder::build)
    }

    /// `length` bytes of letters.
    #[inline]
    pub fn filler(&self, draw: u32, length: u32) -> Text {
        let start = below(draw, FILLER_BYTES as u32 - length) as usize;
        self.cut(self.filler_start + start, length as usize)
    }

    /// A random string as Java's: 3 to `length_end - 1` letters and spaces, the spaces at the ends taken off.
    #[inline]
    pub fn prose(&self, (length_draw, draw): (u32, u32), length_end: u32) -> Text {
        let length = STRING_BYTES_MIN + below(length_draw, length_end - STRING_BYTES_MIN);
        let start = self.prose_start + below(draw, PROSE_BYTES as u32 - length) as usize;
        let bytes = &self.bytes[start..start + length as usize];
        let leading = bytes.iter().take_while(|byte| **byte == b' ').count();
        let kept = bytes.trim_ascii().len();
        self.cut(start + leading, kept)
    }

    #[inline]
    pub fn name(&self, draw: u32) -> Text {
        self.piece(self.names[below(draw, self.names.len() as u32) as usize])
    }

    #[inline]
    pub fn email(&self, draw: u32) -> Text {
        self.piece(self.emails[below(draw, CONTACTS) as usize])
    }

    #[inline]
    pub fn credit_card(&self, draw: u32) -> Text {
        self.cut(self.card_start + below(draw, CONTACTS) as usize * CARD_GROUP_BYTES, CARD_BYTES)
    }

    #[inline]
    pub fn city(&self, draw: u32) -> Text {
        Text::from_static(CITIES[below(draw, CITIES.len() as u32) as usize])
    }

    #[inline]
    pub fn state(&self, draw: u32) -> Text {
        Text::from_static(STATES[below(draw, STATES.len() as u32) as usize])
    }

    /// A channel and its url: a hot one in half of the cases.
    #[inline]
    pub fn channel(&self, (hot_draw, draw): (u32, u32)) -> (Text, Text) {
        let hot = below(draw, HOT_CHANNELS.len() as u32);
        let small = HOT_CHANNELS.len() as u32 + below(draw, SMALL_CHANNELS);
        let channel = self.channels[select_unpredictable(below(hot_draw, 2) > 0, hot, small) as usize];
        let url_start = channel.start as usize + channel.name_length as usize;
        (
            self.cut(channel.start as usize, channel.name_length as usize),
            self.cut(url_start, channel.url_length as usize),
        )
    }

    #[inline]
    fn piece(&self, piece: Piece) -> Text {
        self.cut(piece.start as usize, piece.length as usize)
    }

    /// Does not read the text: a check for character boundaries would cost a cache miss for each string.
    #[inline]
    fn cut(&self, start: usize, length: usize) -> Text {
        let bytes: &'static [u8] = &self.bytes[start..start + length];
        // SAFETY: `Builder::build` made sure that all bytes are ASCII, and any range of ASCII is UTF-8.
        Text::from_static(unsafe { std::str::from_utf8_unchecked(bytes) })
    }
}

/// Appends the pools to one string.
struct Builder {
    text: String,
    random: Random,
}

impl Builder {
    fn build() -> WordPools {
        let mut builder = Builder { text: String::with_capacity(9 << 19), random: Random::new(0, 0) };
        let filler_start = builder.text.len();
        (0..FILLER_BYTES).for_each(|_| builder.push_letter());
        let prose_start = builder.text.len();
        (0..PROSE_BYTES).for_each(|_| builder.push_letter_or(' '));
        let card_start = builder.text.len();
        (0..CONTACTS + 3).for_each(|_| builder.push_card_group());
        let names = FIRST_NAMES
            .iter()
            .flat_map(|first| LAST_NAMES.map(|last| format!("{first} {last}")))
            .map(|name| builder.push(&name))
            .collect();
        let emails = (0..CONTACTS).map(|_| builder.push_email()).collect();
        let mut channels: Vec<Channel> =
            HOT_CHANNELS.iter().map(|name| builder.push_channel(name, None)).collect();
        channels.extend((0..SMALL_CHANNELS).map(|number| {
            let name = format!("channel-{number}");
            // The absolute value of the reversed bits; that of channel 1 has none and stays negative.
            let id = (number as i32).reverse_bits().wrapping_abs();
            let has_id = builder.draw(10) > 0;
            builder.push_channel(&name, has_id.then_some(id))
        }));

        builder.text.shrink_to_fit();
        let text: &'static str = builder.text.leak();
        assert!(text.is_ascii(), "the pools are cut at any byte");
        let bytes = text.as_bytes();
        WordPools { bytes, filler_start, prose_start, card_start, names, emails, channels }
    }

    fn draw(&mut self, bound: u32) -> u32 {
        below(self.random.pair().0, bound)
    }

    fn push(&mut self, text: &str) -> Piece {
        let piece = Piece { start: self.text.len() as u32, length: text.len() as u32 };
        self.text.push_str(text);
        piece
    }

    fn push_letter(&mut self) {
        let letter = b'a' + self.draw(26) as u8;
        self.text.push(letter.into());
    }

    fn push_letter_or(&mut self, separator: char) {
        if self.draw(SEPARATOR_EVERY) == 0 {
            self.text.push(separator);
        } else {
            self.push_letter();
        }
    }

    /// Pushes 3 to `length_end - 1` letters and separators.
    fn push_string(&mut self, length_end: u32, separator: char) {
        let length = STRING_BYTES_MIN + self.draw(length_end - STRING_BYTES_MIN);
        (0..length).for_each(|_| self.push_letter_or(separator));
    }

    fn push_card_group(&mut self) {
        let group = self.draw(10_000);
        self.text.push_str(&format!("{group:04} "));
    }

    fn push_email(&mut self) -> Piece {
        let start = self.text.len();
        for (length_end, suffix) in [(7, "@"), (5, ".com")] {
            let part_start = self.text.len();
            self.push_string(length_end, ' ');
            let trimmed = self.text[part_start..].trim().to_owned();
            self.text.truncate(part_start);
            self.text.push_str(&trimmed);
            self.text.push_str(suffix);
        }
        Piece { start: start as u32, length: (self.text.len() - start) as u32 }
    }

    fn push_channel(&mut self, name: &str, id: Option<i32>) -> Channel {
        let name = self.push(name);
        let url_start = self.text.len();
        self.text.push_str("https://www.nexmark.com/");
        for _ in 0..3 {
            self.push_string(5, '_');
            self.text.push('/');
        }
        self.text.push_str("item.htm?query=1");
        if let Some(id) = id {
            self.text.push_str(&format!("&channel_id={id}"));
        }
        Channel {
            start: name.start,
            name_length: name.length as u16,
            url_length: (self.text.len() - url_start) as u16,
        }
    }
}
