//! What must stop when an environment (a worker, or Node itself) ends.
//!
//! One hook per environment, instead of one per machine or process: napi cannot take a hook back
//! safely once it may have run, so hooks of short-lived things would pile up.

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};

use napi::Env;

/// Something that has to be stopped before its environment is gone.
pub(crate) trait Stop: Send + Sync {
    /// Stops it; returns when it may no longer use anything of this process that matters. Called
    /// from several threads at once, each call returns only then.
    fn stop(&self);
}

thread_local! {
    /// An environment lives on one thread; a thread may hold several, told apart by their address.
    static OWNED: RefCell<HashMap<usize, Owned>> = RefCell::new(HashMap::new());
}

#[derive(Default)]
struct Owned {
    things: Vec<Weak<dyn Stop>>,
    /// When there are this many, the dead ones are dropped.
    sweep_at: usize,
}

/// Stops `thing` when the environment ends, unless it is gone by then.
pub(crate) fn stop_at_end_of_env<T: Stop + 'static>(env: &Env, thing: &Arc<T>) -> napi::Result<()> {
    let key = env.raw() as usize;
    let weak = Arc::downgrade(thing);
    let first = OWNED.with_borrow_mut(|environments| {
        let first = !environments.contains_key(&key);
        let owned = environments.entry(key).or_default();
        if owned.things.len() >= owned.sweep_at {
            owned.things.retain(|thing| thing.strong_count() > 0);
            owned.sweep_at = (owned.things.len() * 2).max(16);
        }
        owned.things.push(weak);
        first
    });
    if first {
        env.add_env_cleanup_hook(key, |key| {
            let owned = OWNED.with_borrow_mut(|environments| environments.remove(&key));
            for thing in owned.unwrap_or_default().things {
                if let Some(thing) = thing.upgrade() {
                    // A panic here would cross into C and end the process; the others still want to be stopped.
                    let _ = catch_unwind(AssertUnwindSafe(|| thing.stop()));
                }
            }
        })?;
    }
    Ok(())
}
