//! File descriptors as JavaScript holds them: plain numbers.

use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use microvm_vsock::private_listener;
use napi::Env;
use napi_derive::napi;

use crate::error::BindingError;

/// Two connected stream sockets. Both belong to the caller: hand one to a `net.Socket`, and the
/// other to [`close_descriptor`] once it was passed on.
#[napi(catch_unwind)]
pub fn socket_pair(env: Env) -> napi::Result<Vec<RawFd>> {
    let (near, far) = UnixStream::pair()
        .map_err(|error| BindingError::system("Cannot make a socket pair", &error).into_js(&env))?;
    Ok(vec![
        OwnedFd::from(near).into_raw_fd(),
        OwnedFd::from(far).into_raw_fd(),
    ])
}

/// A socket that listens at `path`, which only its owner may connect to from the first moment on:
/// Node can change the mode no sooner than others may have connected. The descriptor, and the file,
/// belong to the caller.
#[napi(catch_unwind)]
pub fn listen_privately(env: Env, path: String) -> napi::Result<RawFd> {
    private_listener(Path::new(&path))
        .map(IntoRawFd::into_raw_fd)
        .map_err(|error| BindingError::system("Cannot listen", &error).into_js(&env))
}

/// Closes a descriptor that [`socket_pair`] gave. (`fs.closeSync` would do, but warns in workers
/// about descriptors that `fs` did not open.)
#[napi(catch_unwind)]
pub fn close_descriptor(env: Env, descriptor: RawFd) -> napi::Result<()> {
    if descriptor < 0 {
        return Err(BindingError::invalid("A descriptor number is negative").into_js(&env));
    }
    // SAFETY: the caller owns the descriptor and gives it up with this call.
    drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
    Ok(())
}

/// A duplicate of a descriptor that JavaScript holds; the caller keeps its own.
pub(crate) fn duplicate(descriptor: RawFd) -> Result<OwnedFd, BindingError> {
    if descriptor < 0 {
        return Err(BindingError::invalid("A descriptor number is negative"));
    }
    // SAFETY: not -1, and used for the one call only, which answers EBADF where nothing is open
    // under this number.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
    borrowed
        .try_clone_to_owned()
        .map_err(|error| BindingError::system("Cannot duplicate a descriptor", &error))
}
