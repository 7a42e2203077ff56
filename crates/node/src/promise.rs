//! Promises for work that blocks or waits.

use std::future::Future;

use napi::Env;
use napi::bindgen_prelude::{PromiseRaw, ToNapiValue, spawn_blocking};
use napi::tokio::sync::oneshot;

use crate::error::BindingError;

/// A promise for `future`; a failure rejects with the `Error` that [`BindingError`] describes.
pub(crate) fn settle<'env, T, F>(env: &'env Env, future: F) -> napi::Result<PromiseRaw<'env, T>>
where
    T: 'static + Send + ToNapiValue,
    F: 'static + Send + Future<Output = Result<T, BindingError>>,
{
    settle_then(env, future, |_, value| Ok(value))
}

/// Bytes of stack of a thread that waits. It does little else.
const WAITING_STACK: usize = 256 << 10;

/// A promise for `work`, which may block for a moment and runs on the runtime's pool for that.
/// What waits for something else to happen goes through [`waiting`].
pub(crate) fn blocking<'env, T, W>(env: &'env Env, work: W) -> napi::Result<PromiseRaw<'env, T>>
where
    T: 'static + Send + ToNapiValue,
    W: 'static + Send + FnOnce() -> Result<T, BindingError>,
{
    blocking_then(env, work, |_, value| Ok(value))
}

/// A promise for `work` that waits for as long as a machine or a process lives, on a thread of its
/// own named `name`. The threads of the pool are limited in number and shared by the process:
/// with one machine for each of them, nothing could stop a machine any more.
pub(crate) fn waiting<'env, T, W>(
    env: &'env Env,
    name: &str,
    work: W,
) -> napi::Result<PromiseRaw<'env, T>>
where
    T: 'static + Send + ToNapiValue,
    W: 'static + Send + FnOnce() -> T,
{
    let (done, result) = oneshot::channel();
    let thread = std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(WAITING_STACK)
        .spawn(move || {
            // Nobody is told where the environment ended first.
            let _ = done.send(work());
        });
    let future = async move {
        let thread = thread
            .map_err(|error| BindingError::system("Cannot make a thread that waits", &error))?;
        let result = result.await;
        // It has nothing left to do; whoever hears of the end may count the threads.
        let _ = thread.join();
        result.map_err(|_| {
            // Nothing was sent: the work panicked.
            BindingError::internal("Native code failed unexpectedly while it waited".to_owned())
        })
    };
    settle(env, future)
}

/// As [`blocking`]; `finish` then turns the result into what JavaScript gets, on its thread. It
/// does not run when the environment ends first: the result is dropped.
pub(crate) fn blocking_then<'env, T, V, W, F>(
    env: &'env Env,
    work: W,
    finish: F,
) -> napi::Result<PromiseRaw<'env, V>>
where
    T: 'static + Send,
    V: ToNapiValue,
    W: 'static + Send + FnOnce() -> Result<T, BindingError>,
    F: 'static + FnOnce(&'env Env, T) -> napi::Result<V>,
{
    let future = async move {
        spawn_blocking(work).await.unwrap_or_else(|error| {
            Err(BindingError::internal(format!(
                "Native code failed unexpectedly: {error}"
            )))
        })
    };
    settle_then(env, future, finish)
}

/// As [`settle`], with a last step as in [`blocking_then`].
pub(crate) fn settle_then<'env, T, V, U, F>(
    env: &'env Env,
    future: U,
    finish: F,
) -> napi::Result<PromiseRaw<'env, V>>
where
    T: 'static + Send,
    V: ToNapiValue,
    U: 'static + Send + Future<Output = Result<T, BindingError>>,
    F: 'static + FnOnce(&'env Env, T) -> napi::Result<V>,
{
    // The outer result is for failures of the runtime: the error object can only be made on the
    // JavaScript thread, which is where the callback runs.
    let carried = async move { Ok(future.await) };
    env.spawn_future_with_callback(carried, move |env, result| match result {
        Ok(value) => finish(env, value),
        Err(error) => Err(error.into_js(env)),
    })
}
