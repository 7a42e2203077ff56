//! How fast this host runs guest code.

use std::path::PathBuf;

use microvm_kvm::guest_speed::measure_guest_speed as measure;
use napi::Env;
use napi::bindgen_prelude::PromiseRaw;
use napi_derive::napi;

use crate::promise;

/// Guest code against the same code on the host; 1 is the same speed, higher is slower.
#[derive(Debug)]
#[napi(object)]
pub struct BindingGuestSpeed {
    /// In guest ring 0, where the kernel runs.
    pub ring0_ratio: f64,
    /// In guest ring 3; absent where it cannot be measured.
    pub ring3_ratio: Option<f64>,
}

/// Measures on the KVM device at `kvm_device`; takes up to 0.1 s on a slow host.
#[napi(catch_unwind)]
pub fn measure_guest_speed(
    env: &Env,
    kvm_device: String,
) -> napi::Result<PromiseRaw<'_, BindingGuestSpeed>> {
    promise::blocking(env, move || {
        let speed = measure(&PathBuf::from(kvm_device))?;
        Ok(BindingGuestSpeed {
            ring0_ratio: speed.ring0_ratio(),
            ring3_ratio: speed.ring3_ratio(),
        })
    })
}
