//! What differs by architecture.
