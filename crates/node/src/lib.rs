//! The Node binding: conversions only
