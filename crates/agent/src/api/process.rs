//! A process of the API: its number, signals, terminal, and how it is ended with all that it has started.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::{Rc, Weak};
use std::time::Duration;

use nix::unistd::Pid;
use tokio::task::AbortHandle;

use super::Api;
use super::answer::Refusal;
use super::specification::Size;
use super::terminal;
use crate::cgroup::CommandGroup;
use crate::console::note;

/// The processes that run, by the API's own numbers: those of the kernel are given anew.
#[derive(Debug, Default)]
pub(crate) struct Processes {
    made: Cell<u64>,
    running: RefCell<HashMap<u64, Weak<Process>>>,
}

/// A process and all that it has started. Dropping it before its end was told ends them, unless it is detached.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) id: u64,
    pub(crate) pid: Pid,
    api: Rc<Api>,
    group: RefCell<Option<CommandGroup>>,
    /// The master side.
    terminal: Option<OwnedFd>,
    detached: bool,
    /// A line too long for an argument; its shell opens it through /proc.
    _script: Option<OwnedFd>,
    /// It was asked to end with all that it has started.
    terminating: Cell<bool>,
    ended: Cell<bool>,
    /// The task that brings it its standard input.
    pub(crate) input: RefCell<Option<AbortHandle>>,
}

/// A child that has just been made.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) pid: Pid,
    pub(crate) group: Option<CommandGroup>,
    /// The master side.
    pub(crate) terminal: Option<OwnedFd>,
    pub(crate) detached: bool,
    /// What its shell reads its line from, where that is too long for an argument.
    pub(crate) script: Option<OwnedFd>,
}

impl Processes {
    pub(crate) fn get(&self, id: u64) -> Option<Rc<Process>> {
        self.running.borrow().get(&id).and_then(Weak::upgrade)
    }

    fn add(&self, make: impl FnOnce(u64) -> Process) -> Rc<Process> {
        let id = self.made.get().saturating_add(1);
        self.made.set(id);
        let process = Rc::new(make(id));
        self.running
            .borrow_mut()
            .insert(id, Rc::downgrade(&process));
        process
    }
}

impl Process {
    /// Takes over a child that has just been made.
    pub(crate) fn new(api: &Rc<Api>, child: Child) -> Rc<Self> {
        api.processes.add(|id| Self {
            id,
            pid: child.pid,
            api: Rc::clone(api),
            group: RefCell::new(child.group),
            terminal: child.terminal,
            detached: child.detached,
            _script: child.script,
            terminating: Cell::new(false),
            ended: Cell::new(false),
            input: RefCell::new(None),
        })
    }

    pub(crate) fn is_detached(&self) -> bool {
        self.detached
    }

    /// Signals the process and those of its process group. 0 only asks whether it is there.
    pub(crate) fn signal(&self, number: i32) -> Result<(), Refusal> {
        if !(0..=64).contains(&number) {
            return Err(Refusal::bad_request("a signal is a number from 1 to 64"));
        }
        if self.api.children.signal_group(self.pid, number) {
            Ok(())
        } else {
            Err(Refusal::not_found("this process has ended"))
        }
    }

    /// Asks everything that it has started to end; what is left after so many milliseconds, or when the process itself
    /// has ended, is killed.
    pub(crate) fn terminate(self: &Rc<Self>, grace_ms: u64) {
        if self.terminating.replace(true) {
            return;
        }
        self.signal_all(libc::SIGTERM);
        // A stopped process takes SIGTERM only when it goes on.
        self.signal_all(libc::SIGCONT);
        let process = Rc::downgrade(self);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(Duration::from_millis(grace_ms)).await;
            if let Some(process) = process.upgrade() {
                process.kill_all();
            }
        });
    }

    pub(crate) fn resize(&self, columns: u16, rows: u16) -> Result<(), Refusal> {
        let terminal = self
            .terminal
            .as_ref()
            .ok_or_else(|| Refusal::bad_request("this process has no terminal"))?;
        terminal::resize(terminal.as_fd(), Size { columns, rows })?;
        Ok(())
    }

    /// How many processes of its group the kernel has killed for want of memory.
    pub(crate) fn out_of_memory_kills(&self) -> u64 {
        let group = self.group.borrow();
        group.as_ref().map_or(0, CommandGroup::out_of_memory_kills)
    }

    /// Its status was taken and its output is told: what it has started may live on.
    pub(crate) fn finish(&self) {
        self.ended.set(true);
        if self.terminating.get() {
            self.kill_all();
        }
    }

    /// The status was taken. Nobody needs its input any more.
    pub(crate) fn stop_input(&self) {
        if let Some(input) = self.input.borrow_mut().take() {
            input.abort();
        }
    }

    fn signal_all(&self, number: i32) {
        let Some(processes) = self.group.borrow().as_ref().map(CommandGroup::processes) else {
            self.api.children.signal_group(self.pid, number);
            return;
        };
        for pid in processes {
            // A number that was given anew within this moment belongs to this guest all the same.
            // SAFETY: the call takes numbers only.
            unsafe { libc::kill(pid, number) };
        }
    }

    fn kill_all(&self) {
        self.api.children.signal_group(self.pid, libc::SIGKILL);
        if let Some(group) = self.group.borrow().as_ref()
            && let Err(error) = group.kill()
        {
            note(format_args!(
                "cannot kill a process's control group: {error}"
            ));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.api.processes.running.borrow_mut().remove(&self.id);
        self.stop_input();
        if !self.ended.get() && !self.detached {
            self.kill_all();
        }
        if let Some(group) = self.group.borrow_mut().take() {
            self.api.give_back(group);
        }
    }
}
