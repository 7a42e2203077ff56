//! The vsock device for a VMM outside of this process.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use microvm_vsock::{VhostUserHost, VsockConfig, VsockDevice};
use napi::Env;
use napi::bindgen_prelude::PromiseRaw;
use napi_derive::napi;

use crate::cleanup::{Stop, stop_at_end_of_env};
use crate::error::BindingError;
use crate::metrics::{BindingQueueMetrics, milliseconds, queue_metrics};
use crate::promise;
use crate::slot::Slot;

/// Where the device and its back end listen.
#[derive(Debug)]
#[napi(object)]
pub struct BindingVsockOptions {
    /// Context ID of the guest, 3 or above.
    pub guest_cid: u32,
    /// The device's socket, for programs of the host.
    pub socket: String,
    /// The back end's socket, for one VMM.
    pub vhost_user_socket: String,
}

/// What a vsock device and its thread did.
#[derive(Debug)]
#[napi(object)]
pub struct BindingVsockMetrics {
    /// Processor time of the thread that works on its queues, in milliseconds.
    pub cpu_ms: f64,
    /// Receive, transmit and event queue.
    pub queues: Vec<BindingQueueMetrics>,
}

/// A vsock device that threads of this process carry, until it is stopped or the VMM goes.
#[derive(Debug)]
#[napi]
pub struct BindingVsockHost {
    /// Empty once it was stopped.
    host: Slot<VhostUserHost>,
}

/// Makes the device; it listens when this returns.
#[napi(catch_unwind)]
pub fn serve_vsock(env: Env, options: BindingVsockOptions) -> napi::Result<BindingVsockHost> {
    let host = serve(options).map_err(|error| error.into_js(&env))?;
    let host = Arc::new(host);
    stop_at_end_of_env(&env, &host)?;
    Ok(BindingVsockHost {
        host: Slot::new(host),
    })
}

fn serve(options: BindingVsockOptions) -> Result<VhostUserHost, BindingError> {
    let device = VsockDevice::new(VsockConfig {
        guest_cid: options.guest_cid.into(),
        socket: PathBuf::from(options.socket),
    })?;
    Ok(VhostUserHost::serve(
        device,
        Path::new(&options.vhost_user_socket),
    )?)
}

impl Stop for VhostUserHost {
    fn stop(&self) {
        self.stop();
    }
}

#[napi]
impl BindingVsockHost {
    /// What it did so far.
    #[napi(catch_unwind)]
    pub fn metrics(&self, env: Env) -> napi::Result<BindingVsockMetrics> {
        let host = self
            .host
            .get()
            .ok_or_else(|| BindingError::ended().into_js(&env))?;
        Ok(BindingVsockMetrics {
            cpu_ms: milliseconds(host.time()),
            queues: queue_metrics(host.queues()),
        })
    }

    /// Ends its threads and removes its sockets; resolves when that is done.
    #[napi(catch_unwind)]
    pub fn stop<'env>(&self, env: &'env Env) -> napi::Result<PromiseRaw<'env, ()>> {
        let host = self.host.clone();
        promise::blocking(env, move || {
            host.stop();
            Ok(())
        })
    }

    /// The same, for a process that is about to exit.
    #[napi(catch_unwind)]
    pub fn stop_sync(&self) {
        self.host.stop();
    }
}
