//! Recursive types and very large ones.

use std::collections::HashMap;

use serde::Deserialize;

use super::check;
use crate::types::Shape;

#[derive(Deserialize)]
#[allow(dead_code)]
struct Node {
    next: Option<Box<Node>>,
    value: u32,
}

#[derive(Deserialize)]
#[allow(dead_code)]
struct Tree {
    left: Option<Box<Tree>>,
    right: Option<Box<Tree>>,
    label: Label,
}

#[derive(Deserialize)]
#[allow(dead_code)]
enum Label {
    Plain(String),
    Tagged(Vec<Tree>),
    Numbered(HashMap<u8, Label>),
}

#[derive(Deserialize)]
#[allow(dead_code)]
enum Expression {
    Add(Box<Expression>, Box<Expression>),
    Negate(Box<Expression>),
    If { condition: Box<Condition>, then: Box<Expression>, otherwise: Box<Expression> },
    Literal(i64),
}

#[derive(Deserialize)]
#[allow(dead_code)]
enum Condition {
    Not(Box<Condition>),
    Less(Expression, Expression),
    True,
}

#[test]
fn a_linked_list_closes_on_itself() {
    check::<Node>("Node{next: ^Node?, value: u32}");
    check::<Option<Box<Node>>>("Node{next: ^Node?, value: u32}?");
}

#[test]
fn a_recursive_type_is_given_in_full_wherever_it_is_entered() {
    let node = "Node{next: ^Node?, value: u32}";
    check::<(Node, Vec<Node>)>(&format!("({node}, [{node}])"));
}

#[test]
fn mutually_recursive_types_are_given_once() {
    check::<Tree>(
        "Tree{left: ^Tree?, right: ^Tree?, \
         label: enum Label{Plain(str), Tagged([^Tree]), Numbered(map[u8: ^Label])}}",
    );
}

#[test]
fn an_enum_whose_first_variants_recurse_is_traced_to_the_end() {
    check::<Expression>(
        "enum Expression{Add(^Expression, ^Expression), Negate(^Expression), \
         If{condition: enum Condition{Not(^Condition), Less(^Expression, ^Expression), True}, \
         then: ^Expression, otherwise: ^Expression}, Literal(i64)}",
    );
}

#[test]
fn a_cycle_without_a_name_is_cut() {
    #[derive(Deserialize)]
    #[serde(transparent)]
    #[allow(dead_code)]
    struct Forest(Vec<Forest>);
    check::<Forest>("[^seq]");

    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Park {
        woods: Forest,
        inner: Vec<Park>,
    }
    check::<Vec<Park>>("[Park{woods: [^seq], inner: [^Park]}]");
}

#[test]
fn types_that_have_no_values_end_too() {
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Endless {
        inner: Box<Endless>,
        extra: u8,
    }
    check::<Endless>("Endless{inner: ^Endless, extra: u8}");

    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Pair(Box<Pair>, u8);
    check::<Pair>("Pair(^Pair, unknown)");
}

#[test]
fn the_shape_of_shapes_is_known() {
    let text = Shape::of::<Shape>().canonical_text();
    assert!(text.starts_with("enum Shape{Unit, Bool, I8, "), "{text}");
    assert!(text.contains("Struct{name: str, fields: [(str, ^Shape)]}"), "{text}");
    assert!(text.contains("variants: [(str, enum VariantShape{Unit, Newtype(^Shape), Tuple([^Shape])"));
    assert!(!text.contains("unknown"), "{text}");
}

#[test]
fn a_type_of_millions_of_parts_ends_early() {
    macro_rules! doubling {
        ($name:ident $next:ident $($rest:ident)*) => {
            #[derive(Deserialize)]
            #[allow(dead_code)]
            struct $name { a: Box<$next>, b: Box<$next> }
            doubling!($next $($rest)*);
        };
        ($last:ident) => { type $last = u8; };
    }
    doubling!(A B C D E F G H I J K L M N O P Q R S T U V W X Y);
    let text = Shape::of::<A>().to_string();
    assert!(text.contains("X{a: u8, b: u8}"), "{}", &text[..200]);
    assert!(text.contains("unknown(the type has too many parts)"), "{}", &text[..200]);
}

#[test]
fn a_type_nested_very_deep_ends_without_exhausting_the_stack() {
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Deep<T> {
        inner: T,
    }
    type Four<T> = Deep<Deep<Deep<Deep<T>>>>;
    type Sixteen<T> = Four<Four<Four<Four<T>>>>;
    check::<Four<u8>>("Deep{inner: Deep{inner: Deep{inner: Deep{inner: u8}}}}");
    let sixty_four = Shape::of::<Sixteen<Sixteen<Sixteen<Sixteen<u8>>>>>().canonical_text();
    assert!(sixty_four.contains("inner: u8"), "{sixty_four}");
    let eighty = Shape::of::<Sixteen<Sixteen<Sixteen<Sixteen<Sixteen<u8>>>>>>().canonical_text();
    assert!(eighty.contains("inner: u8"), "{eighty}");
    let hundred =
        Shape::of::<Sixteen<Sixteen<Sixteen<Sixteen<Sixteen<Sixteen<Four<u8>>>>>>>>().canonical_text();
    assert!(hundred.contains("inner: unknown"), "{hundred}");
}

#[test]
fn large_webs_of_types_stay_small() {
    macro_rules! web {
        ($($name:ident)*) => {$(
            #[derive(Deserialize)]
            #[allow(dead_code)]
            enum $name { Leaf(u8), Web(Box<Web>), Many(Vec<Web>) }
        )*
            #[derive(Deserialize)]
            #[allow(dead_code, non_snake_case)]
            struct Web { $($name: Option<$name>),* }
        };
    }
    web!(A B C D E F G H I J K L M N O P Q R S T);
    let text = Shape::of::<Web>().canonical_text();
    assert!(!text.contains("unknown"), "{text}");
    assert!(text.ends_with("T: enum T{Leaf(u8), Web(^Web), Many([^Web])}?}"), "{text}");
}
