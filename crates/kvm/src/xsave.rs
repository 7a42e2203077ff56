//! Extended state as bytes, in the layout that the kernel documents for `KVM_GET_XSAVE2`.

use kvm_bindings::{Xsave, kvm_xsave};

use crate::error::{Errno, Error};

/// Bytes of the fixed part.
pub(crate) const FIXED: usize = size_of::<kvm_xsave>();
const WORD: usize = size_of::<u32>();

/// A zeroed extended state of at least `bytes` bytes.
pub(crate) fn empty(bytes: usize) -> Result<Xsave, Error> {
    let extra = bytes.saturating_sub(FIXED).div_ceil(WORD);
    Xsave::new(extra).map_err(|_| Error::of("KVM_GET_XSAVE2")(Errno::new(libc::ENOMEM)))
}

/// The bytes of an extended state.
#[must_use]
pub fn xsave_to_bytes(state: &Xsave) -> Vec<u8> {
    let fixed = state.as_fam_struct_ref().xsave.region.iter();
    let words = fixed.chain(state.as_slice());
    words.flat_map(|word| word.to_le_bytes()).collect()
}

/// The extended state of these bytes.
///
/// # Errors
///
/// Where they are fewer than the fixed part, are not whole words, or are absurdly many.
pub fn xsave_from_bytes(bytes: &[u8]) -> Result<Xsave, Error> {
    if bytes.len() < FIXED || !bytes.len().is_multiple_of(WORD) {
        return Err(Error::XsaveTooShort {
            found: bytes.len(),
            needed: bytes.len().next_multiple_of(WORD).max(FIXED),
        });
    }
    let mut state = empty(bytes.len())?;
    let (words, _) = bytes.as_chunks::<WORD>();
    let mut words = words.iter().map(|&word| u32::from_le_bytes(word));
    // SAFETY: the fixed part is changed, not the length of the rest.
    let fixed = unsafe { state.as_mut_fam_struct() };
    for (to, from) in fixed.xsave.region.iter_mut().zip(&mut words) {
        *to = from;
    }
    for (to, from) in state.as_mut_slice().iter_mut().zip(words) {
        *to = from;
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_the_way_there_and_back() {
        for length in [FIXED, FIXED + 4, FIXED + 4096] {
            let bytes: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            let state = xsave_from_bytes(&bytes).unwrap();
            assert_eq!(xsave_to_bytes(&state), bytes);
        }
    }

    #[test]
    fn short_or_broken_length_is_refused() {
        for length in [0, 4092, FIXED + 1] {
            let error = xsave_from_bytes(&vec![0; length]).unwrap_err();
            assert!(matches!(error, Error::XsaveTooShort { .. }), "{error}");
        }
    }
}
