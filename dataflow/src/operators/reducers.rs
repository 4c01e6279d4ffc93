//! The reduce functions behind `sum`, `min`, `max`, `min_by` and `max_by`.

use std::ops::AddAssign;

use crate::function::Function;

/// Adds `field` up; other fields are those of the first record.
pub fn sum<T, N: AddAssign + Copy>(
    field: impl Fn(&mut T) -> &mut N + Function,
) -> impl FnMut(&mut T, &mut T) + Function {
    move |so_far, next| *field(so_far) += *field(next)
}

/// The smallest `field`; other fields are those of the first record.
pub fn min<T, N: PartialOrd + Copy>(
    field: impl Fn(&mut T) -> &mut N + Function,
) -> impl FnMut(&mut T, &mut T) + Function {
    move |so_far, next| {
        let next = *field(next);
        let so_far = field(so_far);
        if next < *so_far {
            *so_far = next;
        }
    }
}

/// The largest `field`; other fields are those of the first record.
pub fn max<T, N: PartialOrd + Copy>(
    field: impl Fn(&mut T) -> &mut N + Function,
) -> impl FnMut(&mut T, &mut T) + Function {
    move |so_far, next| {
        let next = *field(next);
        let so_far = field(so_far);
        if next > *so_far {
            *so_far = next;
        }
    }
}

/// The record with the smallest `value`; of equal ones the first.
pub fn min_by<T, N: PartialOrd>(value: impl Fn(&T) -> N + Function) -> impl FnMut(&mut T, &mut T) + Function {
    move |so_far, next| {
        if value(next) < value(so_far) {
            std::mem::swap(so_far, next);
        }
    }
}

/// The record with the largest `value`; of equal ones the first.
pub fn max_by<T, N: PartialOrd>(value: impl Fn(&T) -> N + Function) -> impl FnMut(&mut T, &mut T) + Function {
    move |so_far, next| {
        if value(next) > value(so_far) {
            std::mem::swap(so_far, next);
        }
    }
}
