//! The Node binding: conversions only, no logic.
//!
//! What crosses into JavaScript is named `Binding*` and is private to the package: `src/native.ts`
//! is its only caller. Rules that every item keeps:
//!
//! - What may block runs off the event loop and comes back as a promise (`promise`).
//! - No `async fn` on classes: such a future borrows the JavaScript object, and crashes when it
//!   settles while its worker is torn down.
//! - What owns threads, processes or descriptors is stopped when its environment ends (`cleanup`),
//!   so that a terminated worker leaves nothing. That does not happen on `process.exit()`, which
//!   the TypeScript side covers.
//! - A panic becomes an exception: `catch_unwind` on every function, and `promise` for its part.
//! - Every failure becomes an `Error` with a stable `code` in `error`, and nowhere else.

// napi registers nothing under cfg(test), where all of this looks unused; the tests are in JavaScript.
#![cfg_attr(test, allow(dead_code))]

mod archive;
mod cleanup;
mod descriptor;
mod error;
mod field;
mod guest_speed;
mod host;
mod kvm;
mod machine;
mod metrics;
mod process;
mod promise;
mod ring3;
mod slot;
mod vhost_vsock;
mod vsock;
