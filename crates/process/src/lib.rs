//! Helper processes that die with their parent
