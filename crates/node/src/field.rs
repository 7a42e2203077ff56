//! Fields of native structures as JavaScript values: 64-bit ones are bigints, smaller ones are
//! numbers, byte arrays are `Uint8Array`s. What does not fit is refused, never cut.

use napi::bindgen_prelude::{BigInt, Uint8Array};

use crate::error::BindingError;

/// A JavaScript value that stands for a field of type `N`.
pub(crate) trait Field<N>: Sized {
    /// The value for a field.
    fn from_native(native: N) -> Self;
    /// The field's content; `name` says in an error which it was.
    fn into_native(self, name: &str) -> Result<N, BindingError>;
}

fn refused(name: &str, wanted: &str) -> BindingError {
    BindingError::coded("ERR_INVALID_OPTIONS", format!("{name} is not {wanted}"))
}

/// How much or how often, as a number: no bigint, for it counts up from zero.
#[allow(clippy::cast_precision_loss, reason = "2^53 bytes take years to pass")]
pub(crate) fn count(value: u64) -> f64 {
    value as f64
}

/// The content of an unsigned 64-bit field.
pub(crate) fn word(value: &BigInt, name: &str) -> Result<u64, BindingError> {
    match value.get_u64() {
        (false, word, true) => Ok(word),
        _ => Err(refused(name, "an unsigned 64-bit bigint")),
    }
}

impl Field<u64> for BigInt {
    fn from_native(native: u64) -> Self {
        Self::from(native)
    }

    fn into_native(self, name: &str) -> Result<u64, BindingError> {
        word(&self, name)
    }
}

macro_rules! number {
    ($($type:ty, $wanted:literal;)*) => {$(
        impl Field<$type> for f64 {
            fn from_native(native: $type) -> Self {
                Self::from(native)
            }

            fn into_native(self, name: &str) -> Result<$type, BindingError> {
                if self.fract() != 0.0 || !(0.0..=Self::from(<$type>::MAX)).contains(&self) {
                    return Err(refused(name, $wanted));
                }
                #[allow(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "whole and in range, as just checked"
                )]
                Ok(self as $type)
            }
        }
    )*};
}

number! {
    u8, "an unsigned 8-bit integer";
    u16, "an unsigned 16-bit integer";
    u32, "an unsigned 32-bit integer";
}

impl<const N: usize> Field<[u64; N]> for Vec<BigInt> {
    fn from_native(native: [u64; N]) -> Self {
        native.into_iter().map(BigInt::from).collect()
    }

    fn into_native(self, name: &str) -> Result<[u64; N], BindingError> {
        let words: Vec<u64> = self
            .iter()
            .map(|value| word(value, name))
            .collect::<Result<_, _>>()?;
        <[u64; N]>::try_from(words).map_err(|_| refused(name, &format!("{N} bigints")))
    }
}

/// Several registers of `B` bytes, one after the other.
impl<const N: usize, const B: usize> Field<[[u8; B]; N]> for Uint8Array {
    fn from_native(native: [[u8; B]; N]) -> Self {
        Self::new(native.concat())
    }

    fn into_native(self, name: &str) -> Result<[[u8; B]; N], BindingError> {
        let (registers, rest) = self.as_chunks::<B>();
        match <[[u8; B]; N]>::try_from(registers) {
            Ok(registers) if rest.is_empty() => Ok(registers),
            _ => Err(refused(name, &format!("{} bytes", N * B))),
        }
    }
}

/// Defines an object that mirrors a structure of KVM, field by field; fields that are left out
/// (padding) are zero.
macro_rules! mirror {
    ($(
        $(#[$attribute:meta])*
        $name:ident = $native:ty {
            $($(#[$field_attribute:meta])* $field:ident: $type:ty,)*
        }
    )*) => {$(
        $(#[$attribute])*
        #[napi(object)]
        pub struct $name {
            $($(#[$field_attribute])* pub $field: $type,)*
        }

        // Typed arrays have no Debug.
        impl std::fmt::Debug for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter
                    .debug_struct(stringify!($name))
                    .finish_non_exhaustive()
            }
        }

        impl Field<$native> for $name {
            fn from_native(native: $native) -> Self {
                Self { $($field: Field::from_native(native.$field),)* }
            }

            fn into_native(self, name: &str) -> Result<$native, BindingError> {
                let mut native = <$native>::default();
                $(native.$field = self.$field.into_native(&format!(
                    "{name}.{}",
                    stringify!($field)
                ))?;)*
                Ok(native)
            }
        }
    )*};
}
pub(crate) use mirror;
