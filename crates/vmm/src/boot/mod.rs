//! From files to a loaded guest.
