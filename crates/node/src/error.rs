//! The one place where failures of the crates below become JavaScript errors.

use std::error::Error;
use std::fmt::Write;
use std::io;

use microvm_kvm::guest_speed::GuestSpeedError;
use microvm_process::SpawnError;
use microvm_vsock::VsockError;
use napi::bindgen_prelude::{JsObjectValue, JsValue};
use napi::{Env, Status};

/// A failure on its way to JavaScript: an `Error` with `code`, and with `errno` where a system
/// call was refused.
#[derive(Debug)]
pub(crate) struct BindingError {
    /// Stable name; `src/errors.ts` lists them all.
    code: &'static str,
    /// The failure and all of its sources.
    message: String,
    errno: Option<i32>,
}

impl BindingError {
    /// A failure with all of its sources in the message.
    pub(crate) fn new(code: &'static str, error: &(dyn Error + 'static)) -> Self {
        Self {
            code,
            message: with_sources(error),
            errno: errno(error),
        }
    }

    /// A call of the binding that breaks its contract: a bug of the TypeScript side.
    pub(crate) fn invalid(message: &str) -> Self {
        Self {
            code: "ERR_NATIVE_FAILED",
            message: message.to_owned(),
            errno: None,
        }
    }

    /// A bug on this side, such as a panic.
    pub(crate) fn internal(message: String) -> Self {
        Self {
            code: "ERR_NATIVE_FAILED",
            message,
            errno: None,
        }
    }

    /// The host refused something that every other host grants.
    pub(crate) fn system(message: &str, error: &io::Error) -> Self {
        Self {
            code: "ERR_NATIVE_FAILED",
            message: format!("{message}: {error}"),
            errno: error.raw_os_error(),
        }
    }

    /// The JavaScript error; on the JavaScript thread only.
    pub(crate) fn into_js(self, env: &Env) -> napi::Error {
        let fallback = |_| napi::Error::new(Status::GenericFailure, self.message.clone());
        let error = env
            .create_error(napi::Error::new(
                Status::GenericFailure,
                self.message.clone(),
            ))
            .and_then(|mut object| {
                object.set_named_property("code", self.code)?;
                if let Some(errno) = self.errno {
                    object.set_named_property("errno", errno)?;
                }
                Ok(object.to_unknown())
            });
        match error {
            Ok(error) => napi::Error::from(error),
            Err(error) => fallback(error),
        }
    }
}

impl From<SpawnError> for BindingError {
    fn from(error: SpawnError) -> Self {
        Self::new("ERR_SPAWN_FAILED", &error)
    }
}

impl From<GuestSpeedError> for BindingError {
    fn from(error: GuestSpeedError) -> Self {
        let code = match &error {
            GuestSpeedError::Open { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => "ERR_KVM_MISSING",
                io::ErrorKind::PermissionDenied => "ERR_KVM_PERMISSION",
                _ => "ERR_KVM_FAILED",
            },
            _ => "ERR_KVM_FAILED",
        };
        Self::new(code, &error)
    }
}

impl From<VsockError> for BindingError {
    fn from(error: VsockError) -> Self {
        let code = match &error {
            VsockError::PathTooLong { .. } => "ERR_SOCKET_PATH_TOO_LONG",
            VsockError::Listen { .. } => "ERR_SOCKET_FAILED",
            VsockError::GuestCid(_) => "ERR_NATIVE_FAILED",
            VsockError::Create { .. } | VsockError::VhostUser { .. } => "ERR_MACHINE_FAILED",
        };
        Self::new(code, &error)
    }
}

fn with_sources(error: &(dyn Error + 'static)) -> String {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        // Writing to a String cannot fail.
        let _ = write!(message, ": {error}");
        source = error.source();
    }
    message
}

fn errno(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return error.raw_os_error();
        }
        next = error.source();
    }
    None
}
