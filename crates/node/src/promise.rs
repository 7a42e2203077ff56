//! Promises for work that blocks or waits.

use std::future::Future;

use napi::Env;
use napi::bindgen_prelude::{PromiseRaw, ToNapiValue, spawn_blocking};

use crate::error::BindingError;

/// A promise for `future`; a failure rejects with the `Error` that [`BindingError`] describes.
pub(crate) fn settle<'env, T, F>(env: &'env Env, future: F) -> napi::Result<PromiseRaw<'env, T>>
where
    T: 'static + Send + ToNapiValue,
    F: 'static + Send + Future<Output = Result<T, BindingError>>,
{
    env.spawn_future_with_callback(
        // The outer result is for failures of the runtime: the error object can only be made on
        // the JavaScript thread, which is where the callback runs.
        async move { Ok(future.await) },
        |env, result| result.map_err(|error| error.into_js(env)),
    )
}

/// A promise for `work`, which may block and runs on a thread made for that.
pub(crate) fn blocking<'env, T, W>(env: &'env Env, work: W) -> napi::Result<PromiseRaw<'env, T>>
where
    T: 'static + Send + ToNapiValue,
    W: 'static + Send + FnOnce() -> Result<T, BindingError>,
{
    settle(env, async move {
        match spawn_blocking(work).await {
            Ok(result) => result,
            Err(error) => Err(BindingError::internal(format!(
                "Native code failed unexpectedly: {error}"
            ))),
        }
    })
}
