//! Orders of records.

use std::cmp::Ordering;
use std::marker::PhantomData;

use crate::function::Function;

/// Which end comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The smallest first.
    Ascending,
    /// The largest first.
    Descending,
}

impl Order {
    /// Turns the result of a comparison round for descending order.
    #[inline]
    pub fn apply(self, ordering: Ordering) -> Ordering {
        match self {
            Order::Ascending => ordering,
            Order::Descending => ordering.reverse(),
        }
    }
}

/// A total order of `E`.
pub trait Comparator<E>: Clone + Send + 'static {
    /// Which of two comes first.
    fn compare(&self, a: &E, b: &E) -> Ordering;
}

/// The order in which records arrived: none comes first, and sorting is stable.
#[derive(Clone, Copy, Debug)]
pub struct Arrival;

impl<E> Comparator<E> for Arrival {
    #[inline]
    fn compare(&self, _a: &E, _b: &E) -> Ordering {
        Ordering::Equal
    }
}

/// The order that a function gives.
#[derive(Clone)]
pub struct ByFunction<F>(pub F);

impl<E, F: Fn(&E, &E) -> Ordering + Function> Comparator<E> for ByFunction<F> {
    #[inline]
    fn compare(&self, a: &E, b: &E) -> Ordering {
        (self.0)(a, b)
    }
}

/// The order of a value computed from the record.
pub struct ByValueOf<F, N> {
    value: F,
    order: Order,
    compared: PhantomData<fn() -> N>,
}

impl<F, N> ByValueOf<F, N> {
    /// Orders by `value`.
    pub fn new(value: F, order: Order) -> Self {
        ByValueOf { value, order, compared: PhantomData }
    }
}

impl<F: Clone, N> Clone for ByValueOf<F, N> {
    fn clone(&self) -> Self {
        ByValueOf::new(self.value.clone(), self.order)
    }
}

impl<E, N: Ord + 'static, F: Fn(&E) -> N + Function> Comparator<E> for ByValueOf<F, N> {
    #[inline]
    fn compare(&self, a: &E, b: &E) -> Ordering {
        self.order.apply((self.value)(a).cmp(&(self.value)(b)))
    }
}
