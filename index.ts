// The public API: re-exports only.
