//! Types that refuse samples.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::check;
use crate::types::Shape;

macro_rules! validated {
    ($name:ident($raw:ty), $value:ident => $valid:expr) => {
        #[derive(Deserialize)]
        #[serde(try_from = "T")]
        #[serde(bound = "")]
        struct $name;
        type T = $raw;
        impl TryFrom<T> for $name {
            type Error = &'static str;
            fn try_from($value: T) -> Result<Self, Self::Error> {
                if $valid { Ok($name) } else { Err("refused") }
            }
        }
    };
}

#[test]
fn other_samples_are_tried_until_one_is_accepted() {
    validated!(Even(u32), value => value > 1 && value.is_multiple_of(2));
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Row(Even, std::string::String, Even, bool);
    check::<Row>("Row(u32, str, u32, bool)");
}

#[test]
fn dates_in_text_are_found() {
    validated!(Day(String), text => text.len() == 10 && text.split('-').count() == 3);
    check::<(Day, u8)>("(str, u8)");
}

#[test]
fn parts_that_have_to_differ_are_found() {
    validated!(Ordered((u32, u32)), pair => pair.0 < pair.1);
    check::<(Ordered, u8)>("((u32, u32), u8)");
}

#[test]
fn sequences_of_a_certain_length_are_found() {
    validated!(Triple(Vec<u8>), elements => elements.len() == 3);
    check::<(Triple, u8)>("([u8], u8)");
}

#[test]
fn an_option_that_has_to_be_there_is_found() {
    validated!(Present(Option<u8>), value => value.is_some());
    check::<(Present, Present, u8)>("(u8?, u8?, u8)");
}

mod refusing {
    use super::*;
    validated!(Refusing(String), text => text == "the one and only");

    #[test]
    fn the_shape_of_a_type_that_refuses_every_sample_is_what_it_reads() {
        check::<Refusing>("str");
    }

    #[test]
    fn fields_behind_it_are_reached_by_name() {
        #[derive(Deserialize)]
        #[allow(dead_code)]
        struct Row {
            first: Refusing,
            second: Option<Even>,
            third: Refusing,
            fourth: bool,
        }
        #[derive(Deserialize)]
        #[allow(dead_code)]
        enum Even {
            Yes,
            No(char),
        }
        check::<Row>("Row{first: str, second: enum Even{Yes, No(char)}?, third: str, fourth: bool}");
    }

    #[test]
    fn elements_behind_it_are_unknown() {
        check::<(u8, Refusing, bool)>("(u8, str, unknown)");
        let text = Shape::of::<(Refusing, bool)>().to_string();
        assert_eq!(text, "(str, unknown(it stands behind a value for which no sample was found))");
    }
}

#[test]
fn a_type_that_panics_on_samples_is_left_alone() {
    struct Panics;
    impl<'de> Deserialize<'de> for Panics {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let value = u32::deserialize(deserializer)?;
            assert!(value > 1_000, "user code that trusts its data");
            Ok(Panics)
        }
    }
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Row {
        panics: Panics,
        plain: String,
    }
    check::<Row>("Row{panics: u32, plain: str}");
}

#[test]
fn a_type_that_reads_nothing_and_fails_is_unknown() {
    struct Fails;
    impl<'de> Deserialize<'de> for Fails {
        fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            Err(D::Error::custom("never"))
        }
    }
    let text = Shape::of::<Vec<Fails>>().to_string();
    assert_eq!(text, "[unknown(its type refuses every sample value, or panics on it)]");
}
