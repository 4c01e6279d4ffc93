//! Values that are one of a few words.

/// Declares an enum whose variants are written as words. Case does not count, nor does `-` for `_`.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$variant_about:meta])* $variant:ident = $word:literal $(| $alias:literal)*),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $($(#[$variant_about])* $variant),+
        }

        impl $name {
            /// The word as it is written and shown.
            pub const fn word(self) -> &'static str {
                match self {
                    $($name::$variant => $word),+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }

        impl $crate::config::ConfigValue for $name {
            fn expected() -> String {
                format!("one of {}", [$($word),+].map(|word| format!("`{word}`")).join(", "))
            }

            fn parse(text: &str) -> Result<Self, String> {
                let known = [$(($word, $name::$variant)),+ $($(, ($alias, $name::$variant))*)+];
                $crate::config::words::find(text, &known)
            }

            fn render(&self) -> String {
                self.word().into()
            }
        }
    };
}

pub(super) use words;

/// The value whose word `text` is.
pub(super) fn find<T: Copy>(text: &str, known: &[(&'static str, T)]) -> Result<T, String> {
    let normal = |word: &str| word.trim().to_lowercase().replace('_', "-");
    let wanted = normal(text);
    if let Some((_, value)) = known.iter().find(|(word, _)| normal(word) == wanted) {
        return Ok(*value);
    }
    let words: Vec<String> = known.iter().map(|(word, _)| normal(word)).collect();
    match crate::nearest::nearest(&wanted, words.iter().map(String::as_str)) {
        Some(near) => {
            let (word, _) =
                known.iter().find(|(word, _)| normal(word) == near).expect("it is one of the known words");
            Err(format!("unknown word, the nearest is `{word}`"))
        }
        None => Err("unknown word".into()),
    }
}
