//! Trees of this host's files as archives, a piece at a time.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use microvm_archive::{PackOptions, Packer, Progress, UnpackOptions, Unpacker, source_name};
use napi::Env;
use napi::bindgen_prelude::{Buffer, PromiseRaw};
use napi_derive::napi;

use crate::error::BindingError;
use crate::field::count;
use crate::promise;

/// How an archive is to be unpacked.
#[derive(Debug)]
#[napi(object)]
pub struct BindingUnpackOptions {
    /// Where to.
    pub destination: String,
    /// What all names in the archive must begin with.
    pub name: Option<String>,
    /// Give files the owners that the archive names.
    pub owner: bool,
    /// The most bytes of content; whole.
    pub max_bytes: f64,
    /// The most files, folders and links; whole.
    pub max_entries: f64,
}

/// How far a copy has come.
#[napi(object)]
pub struct BindingCopyProgress {
    /// Files, folders and links so far.
    pub entries: f64,
    /// Bytes of content so far.
    pub bytes: f64,
    /// The name in the archive of the newest of them.
    pub path: String,
    /// With packing: the next piece, until the archive has ended.
    pub chunk: Option<Buffer>,
}

// Buffers have no Debug.
impl std::fmt::Debug for BindingCopyProgress {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("BindingCopyProgress")
            .finish_non_exhaustive()
    }
}

/// Calls come one after another, each on another thread.
type Shared<T> = Arc<Mutex<Option<T>>>;

/// Packs a file or folder.
#[derive(Debug)]
#[napi]
pub struct BindingPacker(Shared<Packer>);

/// Unpacks an archive.
#[derive(Debug)]
#[napi]
pub struct BindingUnpacker(Shared<Unpacker>);

/// What a path is called in an archive; `null` where its contents are packed without it.
#[napi(catch_unwind)]
pub fn archive_name(path: String) -> Option<String> {
    source_name(path.as_bytes()).map(|name| String::from_utf8_lossy(name).into_owned())
}

/// Begins an archive; nothing is looked at yet.
#[napi(catch_unwind)]
pub fn pack_tree(source: String, exclude: Vec<String>) -> BindingPacker {
    let packer = Packer::new(PackOptions {
        source: PathBuf::from(source),
        exclude: exclude.into_iter().map(String::into_bytes).collect(),
    });
    BindingPacker(Arc::new(Mutex::new(Some(packer))))
}

/// Begins to unpack; nothing is looked at yet.
#[napi(catch_unwind)]
pub fn unpack_tree(options: BindingUnpackOptions) -> BindingUnpacker {
    let unpacker = Unpacker::new(UnpackOptions {
        destination: PathBuf::from(options.destination),
        name: options.name.map(String::into_bytes),
        owner: options.owner,
        // They come from a guest.
        devices: false,
        max_bytes: whole(options.max_bytes),
        max_entries: whole(options.max_entries),
    });
    BindingUnpacker(Arc::new(Mutex::new(Some(unpacker))))
}

#[napi]
impl BindingPacker {
    /// Packs about so many bytes. Without a `chunk` the archive has ended.
    #[napi(catch_unwind)]
    pub fn next<'env>(
        &self,
        env: &'env Env,
        wanted: u32,
    ) -> napi::Result<PromiseRaw<'env, BindingCopyProgress>> {
        step(env, &self.0, move |packer| {
            let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
            let mut chunk = Vec::with_capacity(wanted.saturating_add(wanted / 8));
            packer.fill(&mut chunk, wanted)?;
            let chunk = (!chunk.is_empty()).then(|| Buffer::from(chunk));
            Ok(told(packer.progress(), chunk))
        })
    }

    /// Closes what is open, when calls that are under way have ended.
    #[napi(catch_unwind)]
    pub fn close(&self) {
        close(&self.0);
    }
}

#[napi]
impl BindingUnpacker {
    /// Unpacks the next bytes.
    #[napi(catch_unwind)]
    pub fn push<'env>(
        &self,
        env: &'env Env,
        chunk: Buffer,
    ) -> napi::Result<PromiseRaw<'env, BindingCopyProgress>> {
        // JavaScript's own memory may be written to meanwhile.
        let chunk = chunk.to_vec();
        step(env, &self.0, move |unpacker| {
            unpacker.push(&chunk)?;
            Ok(told(unpacker.progress(), None))
        })
    }

    /// The archive has ended.
    #[napi(catch_unwind)]
    pub fn finish<'env>(
        &self,
        env: &'env Env,
    ) -> napi::Result<PromiseRaw<'env, BindingCopyProgress>> {
        let shared = Arc::clone(&self.0);
        promise::blocking(env, move || {
            let unpacker = shared.lock().unwrap_or_else(PoisonError::into_inner).take();
            let progress = unpacker.ok_or_else(closed)?.finish()?;
            Ok(told(&progress, None))
        })
    }

    /// Closes what is open, when calls that are under way have ended.
    #[napi(catch_unwind)]
    pub fn close(&self) {
        close(&self.0);
    }
}

fn step<'env, T: 'static + Send>(
    env: &'env Env,
    shared: &Shared<T>,
    work: impl 'static + Send + FnOnce(&mut T) -> Result<BindingCopyProgress, BindingError>,
) -> napi::Result<PromiseRaw<'env, BindingCopyProgress>> {
    let shared = Arc::clone(shared);
    promise::blocking(env, move || {
        let mut held = shared.lock().unwrap_or_else(PoisonError::into_inner);
        work(held.as_mut().ok_or_else(closed)?)
    })
}

/// Without waiting: a call that is under way may be stuck in a slow file system, and gives up its share at its end.
fn close<T>(shared: &Shared<T>) {
    if let Ok(mut held) = shared.try_lock() {
        held.take();
    }
}

fn closed() -> BindingError {
    BindingError::invalid("The archive was closed")
}

fn told(progress: &Progress, chunk: Option<Buffer>) -> BindingCopyProgress {
    BindingCopyProgress {
        entries: count(progress.entries),
        bytes: count(progress.bytes),
        path: String::from_utf8_lossy(&progress.name).into_owned(),
        chunk,
    }
}

/// What is beyond all numbers is no limit.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates"
)]
fn whole(value: f64) -> u64 {
    value as u64
}
