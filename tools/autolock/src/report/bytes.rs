//! Items of a capture as plain bytes, and their fields by the layout.
//!
//! Knows `autolock_capture::layout`'s offsets and types, nothing else. Total: an [`Item`] is as long as its type, so every field is in it.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU32, AtomicU64};

/// A type of field, little-endian in the file.
pub trait Field {
    /// What it holds.
    type Value;
    /// Its value; `bytes` is at least as long as the type.
    fn load(bytes: &[u8]) -> Self::Value;
}

macro_rules! fields {
    ($($atomic:ty = $value:ty),*) => {
        $(impl Field for $atomic {
            type Value = $value;

            fn load(bytes: &[u8]) -> $value {
                let mut word = [0; size_of::<$value>()];
                word.copy_from_slice(&bytes[..size_of::<$value>()]);
                <$value>::from_le_bytes(word)
            }
        })*
    };
}

fields! { AtomicU8 = u8, AtomicU32 = u32, AtomicU64 = u64, AtomicI64 = i64 }

impl<F: Field, const N: usize> Field for [F; N] {
    type Value = [F::Value; N];

    fn load(bytes: &[u8]) -> Self::Value {
        std::array::from_fn(|i| F::load(&bytes[i * size_of::<F>()..]))
    }
}

/// The bytes of a `T` of the layout.
pub struct Item<'a, T>(&'a [u8], PhantomData<T>);

impl<T> Clone for Item<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Item<'_, T> {}

impl<'a, T> Item<'a, T> {
    /// The item at the start of `bytes`; none if they are too few.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        bytes
            .get(..size_of::<T>())
            .map(|bytes| Self(bytes, PhantomData))
    }

    /// The field at `offset`, which `_field` gives the type of. Use [`get`].
    pub fn field<F: Field>(self, offset: usize, _field: impl Fn(&T) -> &F) -> F::Value {
        F::load(&self.0[offset..])
    }

    /// The structure of type `F` at `offset`. Use [`part`].
    pub fn part<F>(self, offset: usize, _field: impl Fn(&T) -> &F) -> Item<'a, F> {
        Item(&self.0[offset..][..size_of::<F>()], PhantomData)
    }

    /// The structures of the array at `offset`. Use [`parts`].
    pub fn parts<F, const N: usize>(
        self,
        offset: usize,
        _field: impl Fn(&T) -> &[F; N],
    ) -> impl Iterator<Item = Item<'a, F>> {
        let all = &self.0[offset..][..N * size_of::<F>()];
        all.chunks_exact(size_of::<F>())
            .map(|bytes| Item(bytes, PhantomData))
    }
}

/// `get!(item, Type, field)`: the value of a number or an array of numbers.
macro_rules! get {
    ($item:expr, $type:ty, $field:ident) => {
        $item.field(core::mem::offset_of!($type, $field), |item: &$type| {
            &item.$field
        })
    };
}

/// `part!(item, Type, field)`: a structure in it.
macro_rules! part {
    ($item:expr, $type:ty, $field:ident) => {
        $item.part(core::mem::offset_of!($type, $field), |item: &$type| {
            &item.$field
        })
    };
}

/// `parts!(item, Type, field)`: the structures of an array in it.
macro_rules! parts {
    ($item:expr, $type:ty, $field:ident) => {
        $item.parts(core::mem::offset_of!($type, $field), |item: &$type| {
            &item.$field
        })
    };
}

pub(crate) use {get, part, parts};
