//! Platforms: opening one, what it says of itself, and what it makes.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use microvm_kvm::{PAGE_SIZE, reaper};
use microvm_ring3::{
    KvmOptions, NewAddressSpace, OutCompletion, Platform, SyscallEntry, lookup, names,
};
use microvm_ring3_linux::Machine;
use napi::Env;
use napi::bindgen_prelude::{BigInt, PromiseRaw};
use napi_derive::napi;

use super::address_space::BindingAddressSpace;
use super::context::BindingContext;
use super::handle::Handle;
use super::memory::BindingRing3Memory;
use crate::error::BindingError;
use crate::field::word;
use crate::promise;

/// How a platform is opened.
#[derive(Debug)]
#[napi(object)]
pub struct BindingPlatformOptions {
    /// Path of its device; where it usually is when absent.
    pub device_path: Option<String>,
    /// Most vCPUs.
    pub vcpus: Option<u32>,
}

/// What a platform says of itself, and what its self-test found.
#[derive(Debug)]
#[napi(object)]
pub struct BindingPlatformFacts {
    /// Whether address spaces copy to and from programs themselves.
    pub supports_address_space_io: bool,
    /// Whether a context has to give its address space up before another one can run.
    pub cooperatively_schedules_address_spaces: bool,
    /// Whether a switch tells that its processor was taken away in between.
    pub detects_cpu_preemption: bool,
    /// Whether it has page tables of its own.
    pub owns_page_tables: bool,
    /// Whether a memory barrier on all threads of this process is one for programs.
    pub has_global_memory_barrier: bool,
    /// Bytes that one mapping should have at most.
    pub map_unit: f64,
    /// First address that programs may use.
    pub min_user_address: BigInt,
    /// First address that programs may not use.
    pub max_user_address: BigInt,
    /// Where SYSCALL leads.
    #[napi(ts_type = "'ring0' | 'ring3'")]
    pub syscall_entry: String,
    /// When the `out` of a stub counts as done.
    #[napi(ts_type = "'before-exit' | 'at-next-run'")]
    pub out_completion: String,
    /// Whether a bare store to a live page table is seen.
    pub sees_page_table_edits: bool,
    /// Whether pages of old page tables can be used for new ones.
    pub recycles_page_tables: bool,
}

/// Which part of a file a memory is.
#[derive(Debug)]
#[napi(object)]
pub struct BindingFileMemory {
    /// Path of the file.
    pub path: String,
    /// Bytes from its start.
    pub offset: BigInt,
    /// Bytes; absent for all to the end, in whole pages.
    pub length: Option<BigInt>,
    /// Whether programs may be let write it.
    pub writable: bool,
}

/// Names of the platforms that there are.
#[napi(catch_unwind)]
pub fn ring3_platforms() -> Vec<String> {
    names()
}

/// A platform.
#[derive(Debug)]
#[napi]
pub struct BindingPlatform {
    opened: Handle<Opened>,
}

/// A platform, and what its sandboxes share.
#[derive(Debug)]
struct Opened {
    platform: Arc<dyn Platform>,
    machine: OnceLock<Arc<Machine>>,
}

#[napi]
impl BindingPlatform {
    /// Opens the platform of this name. The first one of a process takes longer: it tests the host.
    #[napi(catch_unwind, ts_return_type = "Promise<BindingPlatform>")]
    pub fn open(
        env: &Env,
        name: String,
        options: BindingPlatformOptions,
    ) -> napi::Result<PromiseRaw<'_, BindingPlatform>> {
        let work = move || {
            let constructor =
                lookup(&name).map_err(|error| BindingError::new("ERR_INVALID_OPTIONS", &error))?;
            let path = options.device_path.as_deref().map(Path::new);
            let device = constructor.open_device(path)?;
            let vcpus = options.vcpus.map(u64::from);
            Ok(constructor.new_platform(device, KvmOptions { vcpus })?)
        };
        promise::blocking_then(env, work, |_, platform| {
            Ok(BindingPlatform {
                opened: Handle::new(
                    "platform",
                    Arc::new(Opened {
                        platform: platform.into(),
                        machine: OnceLock::new(),
                    }),
                ),
            })
        })
    }

    /// What it says of itself.
    #[napi(catch_unwind)]
    pub fn facts(&self, env: Env) -> napi::Result<BindingPlatformFacts> {
        let platform = self.platform().map_err(|error| error.into_js(&env))?;
        Ok(facts(&*platform))
    }

    /// Makes zeroed memory.
    #[napi(catch_unwind, ts_return_type = "Promise<BindingRing3Memory>")]
    pub fn new_memory<'env>(
        &self,
        env: &'env Env,
        length: BigInt,
    ) -> napi::Result<PromiseRaw<'env, BindingRing3Memory>> {
        let length = word(&length, "length").map_err(|error| error.into_js(env))?;
        let platform = self.platform().map_err(|error| error.into_js(env))?;
        promise::blocking_then(
            env,
            move || Ok(platform.new_memory(length)?),
            |_, memory| Ok(BindingRing3Memory::new(memory)),
        )
    }

    /// Makes memory of a part of a file.
    #[napi(catch_unwind, ts_return_type = "Promise<BindingRing3Memory>")]
    pub fn memory_of_file<'env>(
        &self,
        env: &'env Env,
        file: BindingFileMemory,
    ) -> napi::Result<PromiseRaw<'env, BindingRing3Memory>> {
        let platform = self.platform().map_err(|error| error.into_js(env))?;
        promise::blocking_then(
            env,
            move || memory_of_file(&*platform, &file),
            |_, memory| Ok(BindingRing3Memory::new(memory)),
        )
    }

    /// Makes an address space.
    #[napi(catch_unwind, ts_return_type = "Promise<BindingAddressSpace>")]
    pub fn new_address_space<'env>(
        &self,
        env: &'env Env,
    ) -> napi::Result<PromiseRaw<'env, BindingAddressSpace>> {
        let platform = self.platform().map_err(|error| error.into_js(env))?;
        let work = move || {
            loop {
                match platform.new_address_space()? {
                    NewAddressSpace::Ready(space) => return Ok(space),
                    // Its end says to ask again, too.
                    NewAddressSpace::Wait(free) => drop(free.recv()),
                }
            }
        };
        promise::blocking_then(env, work, |_, space| Ok(BindingAddressSpace::new(space)))
    }

    /// Makes a context.
    #[napi(catch_unwind)]
    pub fn new_context(&self, env: Env) -> napi::Result<BindingContext> {
        let platform = self.platform().map_err(|error| error.into_js(&env))?;
        BindingContext::new(&env, platform.new_context())
    }

    /// Lets go of the platform, which what it has made keeps. Resolves when it is gone where
    /// nothing does.
    #[napi(catch_unwind)]
    pub fn close<'env>(&self, env: &'env Env) -> napi::Result<PromiseRaw<'env, ()>> {
        let platform = self.opened.close();
        promise::blocking(env, move || {
            drop(platform);
            reaper::wait_idle();
            Ok(())
        })
    }
}

impl BindingPlatform {
    fn platform(&self) -> Result<Arc<dyn Platform>, BindingError> {
        Ok(Arc::clone(&self.opened.get()?.platform))
    }

    /// What its sandboxes share.
    pub(super) fn machine(&self) -> Result<Arc<Machine>, BindingError> {
        let opened = self.opened.get()?;
        let platform = &opened.platform;
        let machine = opened
            .machine
            .get_or_init(|| Machine::new(Arc::clone(platform)));
        Ok(Arc::clone(machine))
    }
}

fn facts(platform: &dyn Platform) -> BindingPlatformFacts {
    let host = platform.host_traits();
    BindingPlatformFacts {
        supports_address_space_io: platform.supports_address_space_io(),
        cooperatively_schedules_address_spaces: platform.cooperatively_schedules_address_spaces(),
        detects_cpu_preemption: platform.detects_cpu_preemption(),
        owns_page_tables: platform.owns_page_tables(),
        has_global_memory_barrier: platform.has_global_memory_barrier(),
        #[allow(clippy::cast_precision_loss, reason = "a power of two")]
        map_unit: platform.map_unit() as f64,
        min_user_address: platform.min_user_address().into(),
        max_user_address: platform.max_user_address().into(),
        syscall_entry: match host.syscall_entry {
            SyscallEntry::Ring0 => "ring0".to_owned(),
            SyscallEntry::Ring3 => "ring3".to_owned(),
        },
        out_completion: match host.out_completion {
            OutCompletion::BeforeExit => "before-exit".to_owned(),
            OutCompletion::AtNextRun => "at-next-run".to_owned(),
        },
        sees_page_table_edits: host.sees_page_table_edits,
        recycles_page_tables: host.recycles_page_tables,
    }
}

fn memory_of_file(
    platform: &dyn Platform,
    file: &BindingFileMemory,
) -> Result<Arc<microvm_ring3::Memory>, BindingError> {
    let failed = |error| BindingError::file(&file.path, &error);
    let opened = OpenOptions::new()
        .read(true)
        .write(file.writable)
        // A pipe without a writer would wait.
        .custom_flags(libc::O_NONBLOCK)
        .open(&file.path)
        .map_err(failed)?;
    let offset = word(&file.offset, "offset")?;
    let length = match &file.length {
        Some(length) => word(length, "length")?,
        None => {
            let rest = opened.metadata().map_err(failed)?.len();
            rest.saturating_sub(offset).next_multiple_of(PAGE_SIZE)
        }
    };
    Ok(platform.memory_of_file(opened, offset, length, file.writable)?)
}
