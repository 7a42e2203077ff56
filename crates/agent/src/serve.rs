//! The event loop: one state at a time, and one `poll` for all that can change it.

use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::cgroup::CommandGroups;
use crate::channel::{ChannelError, Connection, Outgoing, Reply};
use crate::children::Children;
use crate::command::RunningCommand;
use crate::console::note;
use crate::dial::{Address, Attempt, DialError};
use crate::power::{self, Ending, POWEROFF_COMMAND, Role};
use crate::readiness::{self, Events};
use crate::signals::{self, Request};

/// The host's question whether anybody is there. Answered here, as a guest may have no shell.
const PROBE_COMMAND: &[u8] = b":";

/// Between attempts to reach a host that does not answer: doubled each time, up to the second figure.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// How long the host has to take the answer to the power-off command before the machine goes.
const FAREWELL: Duration = Duration::from_millis(500);
/// How long processes have between SIGTERM and SIGKILL.
const TERMINATION: Duration = Duration::from_secs(2);

/// PID 1 between the boot and the end.
#[derive(Debug)]
pub(crate) struct Agent {
    role: Role,
    address: Address,
    groups: CommandGroups,
    children: Arc<Children>,
    signals: SignalFd,
    /// For the one thing that the state waits for.
    timer: TimerFd,
    backoff: Duration,
    /// The connection brought a command, so the host is up: its end is followed by an attempt at once.
    commanded: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Between two attempts to reach the host.
    Waiting,
    Dialing(Attempt),
    /// Connected; the host may send a command.
    Idle(Connection),
    Running(Connection, RunningCommand),
    Replying(Connection, Outgoing),
    /// The answer to the power-off command is on its way.
    Acknowledging(Connection, Outgoing),
    /// It has been written; the host closes the channel when it has taken it.
    Leaving(Connection),
    /// All processes were asked to end.
    Terminating(Ending),
    Over(Ending),
}

/// What was found.
#[derive(Debug)]
struct Ready {
    signals: bool,
    timer: bool,
    channel: Events,
    stdout: bool,
    stderr: bool,
}

impl Agent {
    /// From here on the signals of [`signals`] are blocked, in threads that are started later too.
    pub(crate) fn new(
        role: Role,
        address: Address,
        groups: CommandGroups,
        children: Arc<Children>,
    ) -> Result<Self, Errno> {
        let timer_flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        Ok(Self {
            role,
            address,
            groups,
            children,
            signals: signals::open()?,
            timer: TimerFd::new(ClockId::CLOCK_MONOTONIC, timer_flags)?,
            backoff: BACKOFF.0,
            commanded: false,
            state: State::Waiting,
        })
    }

    /// Serves until the machine is to end.
    pub(crate) fn run(mut self) -> Ending {
        self.state = self.dial();
        loop {
            if let State::Over(ending) = self.state {
                return ending;
            }
            let ready = self.wait();
            if ready.signals {
                self.take_signals();
                if self.state.is_ending() {
                    // The rest was found for a state that is no more.
                    continue;
                }
            }
            if ready.timer {
                self.clear_timer();
            }
            let state = mem::replace(&mut self.state, State::Waiting);
            self.state = self.step(state, &ready);
        }
    }

    fn wait(&self) -> Ready {
        let (stdout, stderr) = match &self.state {
            State::Running(_, command) => (command.stdout.pipe(), command.stderr.pipe()),
            _ => (None, None),
        };
        let [signals, timer, channel, stdout, stderr] = readiness::wait([
            Some((self.signals.as_fd(), Events::READABLE)),
            Some((self.timer.as_fd(), Events::READABLE)),
            self.state.channel(),
            stdout.map(|pipe| (pipe, Events::READABLE)),
            stderr.map(|pipe| (pipe, Events::READABLE)),
        ]);
        Ready {
            signals: signals.any(),
            timer: timer.any(),
            channel,
            stdout: stdout.any(),
            stderr: stderr.any(),
        }
    }

    fn take_signals(&mut self) {
        let mut reap = false;
        while let Some(request) = signals::next(&self.signals) {
            match request {
                Request::Reap => reap = true,
                Request::End(ending) if !self.state.is_ending() => {
                    self.state = self.terminate(ending)
                }
                Request::End(_) => {}
            }
        }
        if reap {
            self.reap();
        }
    }

    fn reap(&mut self) {
        let reaped = self.children.reap();
        match &mut self.state {
            State::Running(_, command) => {
                for (pid, exit) in reaped.ended {
                    command.child_ended(pid, exit.code_of_shell());
                }
            }
            State::Terminating(ending) if reaped.none_left => self.state = State::Over(*ending),
            _ => {}
        }
    }

    fn step(&mut self, state: State, ready: &Ready) -> State {
        let touched = ready.channel.any();
        let gone = ready.channel.has(Events::GONE);
        match state {
            State::Waiting if ready.timer => self.dial(),
            State::Dialing(attempt) if touched => match attempt.finish() {
                Ok(socket) => State::Idle(Connection::new(socket)),
                Err(error) => self.dial_failed(&error),
            },
            State::Idle(connection) if touched => self.receive(connection),
            State::Running(_, command) if gone => {
                command.kill(&mut self.groups);
                self.groups.tidy();
                self.after_connection()
            }
            State::Running(connection, mut command) => {
                if ready.stdout {
                    command.stdout.read();
                }
                if ready.stderr {
                    command.stderr.read();
                }
                if command.has_ended() {
                    let reply = command.into_reply(&mut self.groups);
                    let state = self.reply(connection, Outgoing::new(reply));
                    self.groups.tidy();
                    state
                } else {
                    State::Running(connection, command)
                }
            }
            State::Replying(connection, outgoing) if touched => self.reply(connection, outgoing),
            State::Acknowledging(connection, outgoing) if touched => {
                self.acknowledge(connection, outgoing)
            }
            State::Acknowledging(..) if ready.timer => self.terminate(Ending::PowerOff),
            State::Leaving(_) if gone || ready.timer => self.terminate(Ending::PowerOff),
            State::Terminating(ending) if ready.timer => {
                power::signal_all(self.role, Signal::SIGKILL);
                State::Over(ending)
            }
            unchanged => unchanged,
        }
    }

    fn dial(&mut self) -> State {
        match self.address.dial() {
            Ok(attempt) => State::Dialing(attempt),
            Err(error) => self.dial_failed(&error),
        }
    }

    /// After a connection that has come to an end, which is ordinary only between two commands.
    fn dial_again(&mut self, error: &ChannelError) -> State {
        if !matches!(error, ChannelError::Closed) {
            note(format_args!("dialing again: {error}"));
        }
        self.after_connection()
    }

    /// A host that closes each connection before it sends anything is one that does not answer.
    fn after_connection(&mut self) -> State {
        if mem::take(&mut self.commanded) {
            self.dial()
        } else {
            self.dial_later()
        }
    }

    fn dial_later(&mut self) -> State {
        self.set_timer(self.backoff);
        self.backoff = self.backoff.saturating_mul(2).min(BACKOFF.1);
        State::Waiting
    }

    fn dial_failed(&mut self, error: &DialError) -> State {
        match error {
            DialError::Passing(_) => self.dial_later(),
            DialError::OwnerGone | DialError::NoDevice(_) => {
                note(format_args!("powering off: {error}"));
                self.terminate(Ending::PowerOff)
            }
        }
    }

    fn receive(&mut self, mut connection: Connection) -> State {
        let command = match connection.receive() {
            Ok(Some(command)) => command,
            Ok(None) => return State::Idle(connection),
            Err(error) => {
                drop(connection);
                return self.dial_again(&error);
            }
        };
        self.commanded = true;
        self.backoff = BACKOFF.0;
        match command.as_slice() {
            PROBE_COMMAND => self.reply(connection, Outgoing::new(Reply::default())),
            POWEROFF_COMMAND => {
                self.set_timer(FAREWELL);
                self.acknowledge(connection, Outgoing::new(Reply::default()))
            }
            _ => match RunningCommand::start(command, &mut self.groups) {
                Ok(command) => State::Running(connection, command),
                Err(refusal) => self.reply(connection, Outgoing::new(refusal)),
            },
        }
    }

    fn reply(&mut self, mut connection: Connection, mut outgoing: Outgoing) -> State {
        match connection.send(&mut outgoing) {
            Ok(true) => State::Idle(connection),
            Ok(false) => State::Replying(connection, outgoing),
            Err(error) => {
                drop(connection);
                self.dial_again(&error)
            }
        }
    }

    fn acknowledge(&mut self, mut connection: Connection, mut outgoing: Outgoing) -> State {
        match connection.send(&mut outgoing) {
            Ok(true) => {
                connection.finish();
                State::Leaving(connection)
            }
            Ok(false) => State::Acknowledging(connection, outgoing),
            // A host that no longer listens has still asked for it.
            Err(_) => self.terminate(Ending::PowerOff),
        }
    }

    fn terminate(&mut self, ending: Ending) -> State {
        power::signal_all(self.role, Signal::SIGTERM);
        // A stopped process takes SIGTERM only when it goes on.
        power::signal_all(self.role, Signal::SIGCONT);
        self.set_timer(TERMINATION);
        if self.children.reap().none_left {
            State::Over(ending)
        } else {
            State::Terminating(ending)
        }
    }

    /// Otherwise an expired timer stays readable.
    fn clear_timer(&self) {
        if let Err(errno) = self.timer.unset() {
            note(format_args!("cannot clear the timer: {errno}"));
        }
    }

    fn set_timer(&self, delay: Duration) {
        let expiration = Expiration::OneShot(TimeSpec::from_duration(delay));
        if let Err(errno) = self.timer.set(expiration, TimerSetTimeFlags::empty()) {
            note(format_args!("cannot set a timer: {errno}"));
        }
    }
}

impl State {
    /// The connection, if there is one, and what is awaited on it.
    fn channel(&self) -> Option<(BorrowedFd<'_>, Events)> {
        match self {
            Self::Dialing(attempt) => Some((attempt.as_fd(), Events::WRITABLE)),
            Self::Idle(connection) => Some((connection.as_fd(), Events::READABLE)),
            // A second command stays in the socket until this one is answered.
            Self::Running(connection, _) | Self::Leaving(connection) => {
                Some((connection.as_fd(), Events::GONE))
            }
            Self::Replying(connection, _) | Self::Acknowledging(connection, _) => {
                Some((connection.as_fd(), Events::WRITABLE))
            }
            Self::Waiting | Self::Terminating(_) | Self::Over(_) => None,
        }
    }

    fn is_ending(&self) -> bool {
        matches!(self, Self::Terminating(_) | Self::Over(_))
    }
}
