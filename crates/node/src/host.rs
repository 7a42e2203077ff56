//! Questions to this host, for its diagnosis.

use std::path::Path;

use microvm_host::{
    Interface, account, extended_attribute as attribute, group_name as group, groups_of,
    try_interface as try_one, try_vsock_cid as try_cid,
};
use napi::Env;
use napi::bindgen_prelude::Buffer;
use napi_derive::napi;

use crate::error::BindingError;

/// A user of the database.
#[derive(Debug)]
#[napi(object)]
pub struct BindingAccount {
    /// Login name.
    pub name: String,
    /// Primary group.
    pub gid: u32,
}

/// The user with this number.
#[napi(catch_unwind)]
pub fn account_of(env: Env, uid: u32) -> napi::Result<Option<BindingAccount>> {
    let found = account(uid).map_err(|error| BindingError::from(error).into_js(&env))?;
    Ok(found.map(|account| BindingAccount {
        name: account.name,
        gid: account.gid,
    }))
}

/// The name of the group with this number.
#[napi(catch_unwind)]
pub fn group_name(env: Env, gid: u32) -> napi::Result<Option<String>> {
    group(gid).map_err(|error| BindingError::from(error).into_js(&env))
}

/// The groups of a user who logs in now.
#[napi(catch_unwind)]
pub fn groups_of_user(env: Env, name: String, primary: u32) -> napi::Result<Vec<u32>> {
    groups_of(&name, primary).map_err(|error| BindingError::from(error).into_js(&env))
}

/// The value of an extended attribute.
#[napi(catch_unwind)]
pub fn extended_attribute(env: Env, path: String, name: String) -> napi::Result<Option<Buffer>> {
    let value = attribute(Path::new(&path), &name)
        .map_err(|error| BindingError::from(error).into_js(&env))?;
    Ok(value.map(Buffer::from))
}

/// Tries an interface of the kernel by the name that crate `microvm-host` gives it.
#[napi(catch_unwind)]
pub fn try_interface(env: Env, name: String) -> napi::Result<u32> {
    let interface = Interface::ALL
        .into_iter()
        .find(|interface| interface.name() == name)
        .ok_or_else(|| BindingError::invalid("No such interface").into_js(&env))?;
    try_one(interface).map_err(|error| BindingError::from(error).into_js(&env))
}

/// Takes a vsock context ID and gives it back.
#[napi(catch_unwind)]
pub fn try_vsock_cid(env: Env, device: String, cid: u32) -> napi::Result<()> {
    try_cid(Path::new(&device), u64::from(cid))
        .map_err(|error| BindingError::from(error).into_js(&env))
}

/// The version that the addon was built as, which must be the one of the TypeScript above it.
#[napi(catch_unwind)]
pub fn addon_version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}
