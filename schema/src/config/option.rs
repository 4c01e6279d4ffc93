//! A typed option: its names, its default, what it means and what it accepts.

use std::marker::PhantomData;

use super::value::ConfigValue;

/// A key of the configuration whose value is a `T`. `ConfigOption<Option<T>>` is one that may stay unset.
pub struct ConfigOption<T> {
    key: &'static str,
    also: &'static [&'static str],
    deprecated: &'static [&'static str],
    fallback: &'static [&'static str],
    default: Option<&'static str>,
    doc: &'static str,
    check: Option<Check<T>>,
    value: PhantomData<fn() -> T>,
}

/// What a value must fulfil beyond its type.
struct Check<T> {
    holds: fn(&T) -> bool,
    expected: &'static str,
}

impl<T> ConfigOption<T> {
    /// The option of that key, without a default.
    pub const fn new(key: &'static str) -> Self {
        ConfigOption {
            key,
            also: &[],
            deprecated: &[],
            fallback: &[],
            default: None,
            doc: "",
            check: None,
            value: PhantomData,
        }
    }

    /// The default, as it would be written in the file.
    pub const fn default(self, text: &'static str) -> Self {
        ConfigOption { default: Some(text), ..self }
    }

    /// Other keys that mean the same, such as Flink's name of an option of Flott's own.
    pub const fn also(self, keys: &'static [&'static str]) -> Self {
        ConfigOption { also: keys, ..self }
    }

    /// Former keys, still read.
    pub const fn deprecated(self, keys: &'static [&'static str]) -> Self {
        ConfigOption { deprecated: keys, ..self }
    }

    /// Keys of other options, whose value counts where this one is not set in any layer.
    pub const fn fallback(self, keys: &'static [&'static str]) -> Self {
        ConfigOption { fallback: keys, ..self }
    }

    /// What the option does.
    pub const fn doc(self, text: &'static str) -> Self {
        ConfigOption { doc: text, ..self }
    }

    /// A condition that the value must fulfil, and the words that end the sentence "expected ...".
    pub const fn check(self, holds: fn(&T) -> bool, expected: &'static str) -> Self {
        ConfigOption { check: Some(Check { holds, expected }), ..self }
    }

    /// The key of the option.
    pub const fn key(&self) -> &'static str {
        self.key
    }
}

impl<T: ConfigValue> ConfigOption<T> {
    /// Reads and checks a value of this option.
    pub fn parse(&self, text: &str) -> Result<T, String> {
        let value = T::parse(text)?;
        match &self.check {
            Some(check) if !(check.holds)(&value) => Err("out of bounds".into()),
            _ => Ok(value),
        }
    }
}

/// An option without its type: what the loader, the documentation and the tests need of it.
pub trait AnyOption: Sync {
    /// The key.
    fn key(&self) -> &'static str;
    /// Other keys that mean the same.
    fn also(&self) -> &'static [&'static str];
    /// Former keys.
    fn deprecated(&self) -> &'static [&'static str];
    /// Keys of other options that count where this one is not set.
    fn fallback(&self) -> &'static [&'static str];
    /// The default as text.
    fn default_text(&self) -> Option<&'static str>;
    /// What the option does.
    fn doc(&self) -> &'static str;
    /// The form of the value, to end the sentence "expected ...".
    fn expected(&self) -> String;
    /// Whether the value is a map.
    fn is_map(&self) -> bool;
    /// The value of `text` in its canonical form, or what is wrong with it.
    fn canonical(&self, text: &str) -> Result<String, String>;

    /// All names of the option, its own first.
    fn keys(&self) -> Box<dyn Iterator<Item = &'static str>> {
        Box::new(
            [self.key()]
                .into_iter()
                .chain(self.also().iter().copied())
                .chain(self.deprecated().iter().copied()),
        )
    }
}

impl<T: ConfigValue> AnyOption for ConfigOption<T> {
    fn key(&self) -> &'static str {
        self.key
    }

    fn also(&self) -> &'static [&'static str] {
        self.also
    }

    fn deprecated(&self) -> &'static [&'static str] {
        self.deprecated
    }

    fn fallback(&self) -> &'static [&'static str] {
        self.fallback
    }

    fn default_text(&self) -> Option<&'static str> {
        self.default
    }

    fn doc(&self) -> &'static str {
        self.doc
    }

    fn expected(&self) -> String {
        self.check.as_ref().map_or_else(T::expected, |check| check.expected.to_string())
    }

    fn is_map(&self) -> bool {
        T::IS_MAP
    }

    fn canonical(&self, text: &str) -> Result<String, String> {
        self.parse(text).map(|value| value.render())
    }
}

/// Options of one subject, in the order in which they are documented.
pub struct OptionGroup {
    /// The subject.
    pub title: &'static str,
    /// Its options.
    pub options: &'static [&'static dyn AnyOption],
}

/// Declares the options of a group: `/// doc` `NAME: Type = "key", builder calls;`. The doc comment is the option's documentation.
macro_rules! options {
    ($title:literal; $($(#[doc = $doc:literal])+ $name:ident: $type:ty = $key:literal $(, $call:ident($($argument:expr),*))*;)+) => {
        $(
            $(#[doc = $doc])+
            pub static $name: $crate::config::ConfigOption<$type> =
                $crate::config::ConfigOption::<$type>::new($key)$(.$call($($argument),*))*.doc(concat!($($doc),+));
        )+

        /// The options of this subject.
        pub(super) static GROUP: $crate::config::option::OptionGroup = $crate::config::option::OptionGroup {
            title: $title,
            options: &[$(&$name),+],
        };
    };
}

pub(super) use options;

/// Checks that several options share.
pub(super) mod checks {
    use std::time::Duration;

    pub const AT_LEAST_ONE: &str = "a whole number of at least 1";
    pub const FRACTION: &str = "a number from 0 to 1";
    pub const LONGER_THAN_ZERO: &str = "a duration longer than zero such as `10 s`";

    pub fn at_least_one<T: PartialOrd + From<u8>>(number: &T) -> bool {
        *number >= T::from(1)
    }

    pub fn fraction(number: &f64) -> bool {
        (0.0..=1.0).contains(number)
    }

    pub fn longer_than_zero(duration: &Duration) -> bool {
        !duration.is_zero()
    }

    pub fn longer_than_zero_if_set(duration: &Option<Duration>) -> bool {
        duration.is_none_or(|duration| !duration.is_zero())
    }
}
