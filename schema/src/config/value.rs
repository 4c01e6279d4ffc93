//! Reading a value from its text and writing it back.

use std::num::IntErrorKind;

/// A type that a configuration value can have.
pub trait ConfigValue: Sized {
    /// Whether the value is a map, whose entries may be written as keys below the option's own.
    const IS_MAP: bool = false;

    /// The form of the text, to end the sentence "expected ...".
    fn expected() -> String;

    /// Reads the text; the error says what is wrong with it.
    fn parse(text: &str) -> Result<Self, String>;

    /// The text that reads as this value.
    fn render(&self) -> String;

    /// The value of an option that is not set and has no default; `None` where it has to be set.
    fn absent() -> Option<Self> {
        None
    }
}

impl<T: ConfigValue> ConfigValue for Option<T> {
    const IS_MAP: bool = T::IS_MAP;

    fn expected() -> String {
        T::expected()
    }

    fn parse(text: &str) -> Result<Self, String> {
        T::parse(text).map(Some)
    }

    fn render(&self) -> String {
        self.as_ref().map(T::render).unwrap_or_default()
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl ConfigValue for String {
    fn expected() -> String {
        "text".into()
    }

    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.into())
    }

    fn render(&self) -> String {
        self.clone()
    }
}

impl ConfigValue for bool {
    fn expected() -> String {
        "`true` or `false`".into()
    }

    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("true") {
            Ok(true)
        } else if text.eq_ignore_ascii_case("false") {
            Ok(false)
        } else {
            Err("not a truth value".into())
        }
    }

    fn render(&self) -> String {
        self.to_string()
    }
}

macro_rules! whole_numbers {
    ($($number:ty),+) => {$(
        impl ConfigValue for $number {
            fn expected() -> String {
                "a whole number".into()
            }

            fn parse(text: &str) -> Result<Self, String> {
                text.trim().parse::<$number>().map_err(|error| match error.kind() {
                    IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => {
                        format!("not between {} and {}", <$number>::MIN, <$number>::MAX)
                    }
                    _ if <$number>::MIN == 0 && text.trim().parse::<i128>().is_ok_and(|number| number < 0) => {
                        "negative".into()
                    }
                    _ => "not a whole number".into(),
                })
            }

            fn render(&self) -> String {
                self.to_string()
            }
        }
    )+};
}

whole_numbers!(u16, u32, u64, usize, i32, i64);

impl ConfigValue for f64 {
    fn expected() -> String {
        "a number".into()
    }

    fn parse(text: &str) -> Result<Self, String> {
        match text.trim().parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(number),
            _ => Err("not a number".into()),
        }
    }

    fn render(&self) -> String {
        // `{:?}` keeps the point of a whole number: 2.0, as Flink writes it.
        format!("{self:?}")
    }
}
