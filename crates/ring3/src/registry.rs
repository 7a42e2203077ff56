//! Platforms by name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};

use microvm_kvm::{DEFAULT_DEVICE, Errno, Kvm};

use crate::error::Error;
use crate::page_tables::lock;
use crate::platform::{KvmOptions, KvmPlatform, Platform};

/// What a platform asks of the process that uses it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requirements {
    /// Whether the process has to be in the host's own namespace of process numbers.
    pub current_pid_namespace: bool,
    /// Whether it needs the capability to trace other processes.
    pub trace_capability: bool,
}

/// Makes platforms of one kind.
pub trait Constructor: Send + Sync {
    /// Opens the device that the platform uses; at `path`, or where it usually is.
    ///
    /// # Errors
    ///
    /// [`Error::Device`], which says what to do.
    fn open_device(&self, path: Option<&Path>) -> Result<Kvm, Error>;

    /// Makes a platform. The device is closed in any case.
    ///
    /// # Errors
    ///
    /// As [`KvmPlatform::new`].
    fn new_platform(&self, device: Kvm, options: KvmOptions) -> Result<Box<dyn Platform>, Error>;

    /// What the platform asks of the process.
    fn requirements(&self) -> Requirements;
}

/// No platform has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("No platform is called {name:?}; known are: {}", known.join(", "))]
pub struct UnknownPlatform {
    /// The name asked for.
    pub name: String,
    /// The names that there are.
    pub known: Vec<String>,
}

type Registry = BTreeMap<String, Arc<dyn Constructor>>;

static REGISTRY: LazyLock<Mutex<Registry>> = LazyLock::new(|| {
    let kvm: Arc<dyn Constructor> = Arc::new(KvmConstructor);
    Mutex::new(BTreeMap::from([("kvm".to_owned(), kvm)]))
});

/// Makes a platform known by this name, in place of what had it before.
pub fn register(name: &str, constructor: Arc<dyn Constructor>) {
    lock(&REGISTRY).insert(name.to_owned(), constructor);
}

/// The platform of this name.
///
/// # Errors
///
/// Where there is none; the error lists those that there are.
pub fn lookup(name: &str) -> Result<Arc<dyn Constructor>, UnknownPlatform> {
    let registry = lock(&REGISTRY);
    registry
        .get(name)
        .map(Arc::clone)
        .ok_or_else(|| UnknownPlatform {
            name: name.to_owned(),
            known: registry.keys().cloned().collect(),
        })
}

/// All names, in alphabetical order.
#[must_use]
pub fn names() -> Vec<String> {
    lock(&REGISTRY).keys().cloned().collect()
}

struct KvmConstructor;

impl Constructor for KvmConstructor {
    fn open_device(&self, path: Option<&Path>) -> Result<Kvm, Error> {
        open_device(path)
    }

    fn new_platform(&self, device: Kvm, options: KvmOptions) -> Result<Box<dyn Platform>, Error> {
        let platform = KvmPlatform::new(device, options)?;
        Ok(Box::new(platform))
    }

    fn requirements(&self) -> Requirements {
        Requirements::default()
    }
}

/// Opens the KVM device, at `path` or else `/dev/kvm`.
///
/// # Errors
///
/// [`Error::Device`] with the path and what to do.
pub fn open_device(path: Option<&Path>) -> Result<Kvm, Error> {
    let path: PathBuf = path.unwrap_or(Path::new(DEFAULT_DEVICE)).to_owned();
    Kvm::open_path(&path).map_err(|source| Error::Device {
        advice: advice(Errno::new(source.errno())),
        path,
        source,
    })
}

fn advice(errno: Errno) -> &'static str {
    // ENOENT, EACCES and EPERM.
    match errno.errno() {
        2 => "load the module kvm_intel or kvm_amd, or turn virtualization on in the firmware",
        1 | 13 => "become a member of its group, which is kvm most often",
        _ => "check that it is the KVM device (character device 10:232)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_name_lists_the_known_ones() {
        let error = lookup("ptrace").err().unwrap();
        assert!(error.known.contains(&"kvm".to_owned()));
        let text = error.to_string();
        assert!(text.contains("ptrace") && text.contains("kvm"), "{text}");
    }

    #[test]
    fn kvm_is_registered_and_asks_nothing_of_the_process() {
        assert!(names().contains(&"kvm".to_owned()));
        let requirements = lookup("kvm").unwrap().requirements();
        assert_eq!(requirements, Requirements::default());
    }

    #[test]
    fn registered_constructor_is_found_by_its_name() {
        register("other", Arc::new(KvmConstructor));
        assert!(lookup("other").is_ok());
        assert!(names().contains(&"other".to_owned()));
    }

    #[test]
    fn missing_device_is_named_with_what_to_do() {
        let path = Path::new("/nonexistent/kvm");
        let error = lookup("kvm").unwrap().open_device(Some(path)).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("/nonexistent/kvm") && text.contains("kvm_intel"),
            "{text}"
        );
    }

    #[test]
    fn device_that_is_another_one_is_refused() {
        let error = open_device(Some(Path::new("/dev/null"))).unwrap_err();
        assert!(error.to_string().contains("10:232"), "{error}");
    }
}
