//! serde's accesses: elements of sequences and tuples, entries of maps, fields of structs, variants of enums.

use std::any::type_name;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::mem::discriminant;

use serde::de::value::{BorrowedStrDeserializer, U32Deserializer};
use serde::de::{
    DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::error::TraceError;
use super::grammar::{EdgeId, INFINITE, Key, Kind};
use super::{Frame, Place, Tracer};

/// Elements: all of one slot (a sequence) or one of each slot (a tuple).
pub(super) struct ElementsAccess<'t> {
    tracer: &'t mut Tracer,
    frame: Frame,
    next: usize,
    count: usize,
    distinct: bool,
}

impl<'t> ElementsAccess<'t> {
    pub(super) fn repeated(tracer: &'t mut Tracer, frame: Frame, count: usize) -> Self {
        ElementsAccess { tracer, frame, next: 0, count, distinct: false }
    }

    pub(super) fn distinct(tracer: &'t mut Tracer, frame: Frame, count: usize) -> Self {
        ElementsAccess { tracer, frame, next: 0, count, distinct: true }
    }
}

impl<'de> SeqAccess<'de> for ElementsAccess<'_> {
    type Error = TraceError;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, TraceError> {
        if self.next == self.count {
            return Ok(None);
        }
        let slot = if self.distinct { self.next } else { 0 };
        self.next += 1;
        self.tracer.visit_edge(self.frame, slot, |input| seed.deserialize(input)).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.count - self.next)
    }
}

/// Entries of a map: keys at slot 0, values at slot 1.
pub(super) struct EntriesAccess<'t> {
    pub tracer: &'t mut Tracer,
    pub frame: Frame,
    pub left: usize,
}

impl<'de> MapAccess<'de> for EntriesAccess<'_> {
    type Error = TraceError;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, TraceError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        self.tracer.visit_edge(self.frame, 0, |input| seed.deserialize(input)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, TraceError> {
        self.tracer.visit_edge(self.frame, 1, |input| seed.deserialize(input))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

/// Gives a struct its fields: by name, so that fields no value can be built for come last and aliases are found; by
/// position to types that read no names.
pub(super) fn visit_fields<'de, V: Visitor<'de>>(
    tracer: &mut Tracer,
    frame: Frame,
    fields: &'static [&'static str],
    visitor: V,
) -> Result<V::Value, TraceError> {
    if tracer.grammar.nodes[frame.node].positional {
        return visitor.visit_seq(ElementsAccess::distinct(tracer, frame, fields.len()));
    }
    let order = field_order(tracer, frame);
    let mut access = FieldsAccess { tracer, frame, fields, order, next: 0, tags: Vec::new() };
    let result = visitor.visit_map(&mut access);
    let FieldsAccess { tracer, next, tags, .. } = access;
    match result {
        Err(_) if tracer.stopped => Err(TraceError::Stop),
        Err(TraceError::Duplicate(main_name)) if mark_alias(tracer, frame, &tags, main_name) => {
            Err(tracer.stop_learnt())
        }
        Err(_) if next == 0 => {
            tracer.grammar.nodes[frame.node].positional = true;
            Err(tracer.stop_learnt())
        }
        other => other,
    }
}

/// Declared order, but known fields that cannot be built (yet) last, unless the run aims at them.
fn field_order(tracer: &Tracer, frame: Frame) -> Vec<usize> {
    let goal = tracer.path_slot(frame);
    let hopeless = |slot: &usize| {
        let edge = (frame.node, *slot);
        let known = tracer.grammar.edge(edge).target.is_some();
        let blocked = tracer.grammar.edge(edge).blocked;
        goal != Some(*slot) && (blocked || (known && tracer.edge_height(edge) == INFINITE))
    };
    let (mut order, last): (Vec<_>, Vec<_>) =
        tracer.grammar.live_slots(frame.node).partition(|slot| !hopeless(slot));
    order.extend(last);
    order
}

/// The field given last was given before under another name: the later of the two slots is an alias.
fn mark_alias(tracer: &mut Tracer, frame: Frame, tags: &[(usize, u64)], main_name: &'static str) -> bool {
    let Some(((last, tag), before)) = tags.split_last() else { return false };
    let Some((other, _)) = before.iter().find(|(_, other)| other == tag) else { return false };
    let node = &mut tracer.grammar.nodes[frame.node];
    let (main, alias) = (*last.min(other), *last.max(other));
    node.names[main] = main_name.to_owned();
    node.edges[alias].absent = true;
    true
}

struct FieldsAccess<'t> {
    tracer: &'t mut Tracer,
    frame: Frame,
    fields: &'static [&'static str],
    order: Vec<usize>,
    /// Fields given so far.
    next: usize,
    /// The identity of each field given, where it is known.
    tags: Vec<(usize, u64)>,
}

impl<'de> MapAccess<'de> for FieldsAccess<'_> {
    type Error = TraceError;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, TraceError> {
        let Some(slot) = self.order.get(self.next).copied() else { return Ok(None) };
        self.next += 1;
        let field = seed.deserialize(BorrowedStrDeserializer::new(self.fields[slot]))?;
        self.tags.extend(tag_of(&field).map(|tag| (slot, tag)));
        Ok(Some(field))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, TraceError> {
        let given = self.next.checked_sub(1).and_then(|index| self.order.get(index));
        let Some(slot) = given.copied() else { return Err(self.tracer.stop()) };
        self.tracer.visit_edge(self.frame, slot, |input| seed.deserialize(input))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.order.len() - self.next)
    }
}

/// Identity of a field or variant in derived code, where names (aliases among them) are mapped to an enum `__Field`.
/// Hand-written code may use anything there, of which nothing can be said.
fn tag_of<T>(field: &T) -> Option<u64> {
    if !type_name::<T>().contains("::__Field") {
        return None;
    }
    let mut hasher = DefaultHasher::new();
    discriminant(field).hash(&mut hasher);
    Some(hasher.finish())
}

/// One variant of an enum, by name, or by index to types that know no names.
pub(super) struct VariantsAccess<'t> {
    pub tracer: &'t mut Tracer,
    pub frame: Frame,
    pub slot: usize,
    pub name: &'static str,
}

impl<'de, 't> EnumAccess<'de> for VariantsAccess<'t> {
    type Error = TraceError;
    type Variant = ContentAccess<'t>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, ContentAccess<'t>), TraceError> {
        let VariantsAccess { tracer, frame, slot, name } = self;
        let tag = if tracer.grammar.nodes[frame.node].positional {
            let index: U32Deserializer<TraceError> = (slot as u32).into_deserializer();
            seed.deserialize(index)
        } else {
            seed.deserialize(BorrowedStrDeserializer::new(name))
        };
        let node = &mut tracer.grammar.nodes[frame.node];
        let Ok(tag) = tag else {
            if node.positional || node.edges.iter().any(|edge| edge.target.is_some()) {
                node.edges[slot].absent = true;
            }
            node.positional |= !node.edges[slot].absent;
            return Err(tracer.stop_learnt());
        };
        if node.edges[slot].tag.is_none()
            && let Some(identity) = tag_of(&tag)
        {
            if let Some(main) = node.edges.iter().position(|edge| edge.tag == Some(identity)) {
                node.names[main] = format!("{}|{name}", node.names[main]);
                node.edges[slot].absent = true;
                return Err(tracer.stop_learnt());
            }
            node.edges[slot].tag = Some(identity);
        }
        let place = Place {
            edge: (frame.node, slot),
            variation: frame.variation,
            path: tracer.path_below(frame, slot),
        };
        Ok((tag, ContentAccess { tracer, place }))
    }
}

/// The content of a variant.
pub(super) struct ContentAccess<'t> {
    tracer: &'t mut Tracer,
    place: Place,
}

impl ContentAccess<'_> {
    fn enter(
        &mut self,
        kind: Kind,
        names: &'static [&'static str],
        slots: usize,
    ) -> Result<Frame, TraceError> {
        let key = Key { kind, visitor: "", name: "", names, slots, owner: Some(self.place.edge) };
        self.tracer.enter(self.place, key)
    }
}

impl<'de> VariantAccess<'de> for ContentAccess<'_> {
    type Error = TraceError;

    fn unit_variant(mut self) -> Result<(), TraceError> {
        self.enter(Kind::UnitVariant, &[], 0)?;
        self.tracer.leave();
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(mut self, seed: S) -> Result<S::Value, TraceError> {
        let frame = self.enter(Kind::NewtypeVariant, &[], 1)?;
        let result = self.tracer.visit_edge(frame, 0, |input| seed.deserialize(input));
        self.tracer.leave();
        result
    }

    fn tuple_variant<V: Visitor<'de>>(mut self, len: usize, visitor: V) -> Result<V::Value, TraceError> {
        let frame = self.enter(Kind::TupleVariant, &[], len)?;
        let result = visitor.visit_seq(ElementsAccess::distinct(self.tracer, frame, len));
        self.tracer.leave();
        result
    }

    fn struct_variant<V: Visitor<'de>>(
        mut self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TraceError> {
        let frame = self.enter(Kind::StructVariant, fields, fields.len())?;
        let result = visit_fields(self.tracer, frame, fields, visitor);
        self.tracer.leave();
        result
    }
}

impl Tracer {
    /// How many elements to give a sequence or a map: one to look into it, else none; more after refusals.
    pub(super) fn choose_length(&self, frame: Frame) -> usize {
        let more = frame.variation as usize;
        let slots = 0..self.grammar.nodes[frame.node].edges.len();
        if self.wants_content(frame) {
            1 + more % 4
        } else if slots.into_iter().all(|slot| self.is_buildable((frame.node, slot))) {
            more % 5
        } else {
            0
        }
    }

    /// Whether a smallest value is known for an edge.
    pub(super) fn is_buildable(&self, edge: EdgeId) -> bool {
        self.edge_height(edge) != INFINITE
    }
}
