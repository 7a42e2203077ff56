//! Clocks and sleeping.

use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::time::{ClockId, Timespec, clock_getres, clock_gettime};

use super::int;
use crate::files::Layout;
use crate::process::{Answer, Process, Stop};

const TIMER_ABSTIME: u64 = 1;

/// The clocks that programs may read. Those of the processor's time are the run's.
enum Clock {
    Host(ClockId),
    Cpu,
}

fn clock(number: u64) -> Result<Clock, Errno> {
    Ok(match int(number) {
        0 => Clock::Host(ClockId::Realtime),
        1 => Clock::Host(ClockId::Monotonic),
        2 | 3 => Clock::Cpu,
        4 => Clock::Host(ClockId::MonotonicRaw),
        5 => Clock::Host(ClockId::RealtimeCoarse),
        6 => Clock::Host(ClockId::MonotonicCoarse),
        7 => Clock::Host(ClockId::Boottime),
        _ => return Err(Errno::INVAL),
    })
}

fn timespec(time: &Timespec) -> [u8; 16] {
    let mut out = Layout([0; 16]);
    out.u64(0, time.tv_sec.cast_unsigned());
    out.u64(8, time.tv_nsec.cast_unsigned());
    out.0
}

pub fn timeval(time: Duration) -> [u8; 16] {
    let mut out = Layout([0; 16]);
    out.u64(0, time.as_secs());
    out.u64(8, time.subsec_micros().into());
    out.0
}

fn of_duration(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}

impl Process<'_> {
    fn now(&self, number: u64) -> Result<Timespec, Errno> {
        Ok(match clock(number)? {
            Clock::Host(id) => clock_gettime(id),
            Clock::Cpu => of_duration(self.deadlines.cpu_used()),
        })
    }

    /// Reads a `struct timespec` that is a duration.
    pub fn duration(&mut self, address: u64) -> Result<Duration, Errno> {
        let (seconds, nanoseconds) = self.two_numbers(address)?;
        match (u64::try_from(seconds), u32::try_from(nanoseconds)) {
            (Ok(seconds), Ok(nanoseconds)) if nanoseconds < 1_000_000_000 => {
                Ok(Duration::new(seconds, nanoseconds))
            }
            _ => Err(Errno::INVAL),
        }
    }

    /// Reads a `struct timeval`.
    pub fn duration_of_timeval(&mut self, address: u64) -> Result<Duration, Errno> {
        let (seconds, microseconds) = self.two_numbers(address)?;
        match (u64::try_from(seconds), u64::try_from(microseconds)) {
            (Ok(seconds), Ok(microseconds)) => {
                let rest = Duration::from_micros(microseconds);
                Ok(Duration::from_secs(seconds).saturating_add(rest))
            }
            _ => Err(Errno::INVAL),
        }
    }

    fn two_numbers(&mut self, address: u64) -> Result<(i64, i64), Errno> {
        let bytes: [u8; 16] = self.memory.read_array(address)?;
        let ([first, second], _) = bytes.as_chunks::<8>() else {
            return Err(Errno::FAULT);
        };
        Ok((i64::from_le_bytes(*first), i64::from_le_bytes(*second)))
    }

    /// `clock_gettime`
    pub fn clock_gettime(&mut self, number: u64, address: u64) -> Answer {
        let now = self.now(number)?;
        self.memory.write(address, &timespec(&now))?;
        Ok(0)
    }

    /// `clock_getres`
    pub fn clock_getres(&mut self, number: u64, address: u64) -> Answer {
        let resolution = match clock(number)? {
            Clock::Host(id) => clock_getres(id),
            Clock::Cpu => of_duration(Duration::from_nanos(1)),
        };
        if address != 0 {
            self.memory.write(address, &timespec(&resolution))?;
        }
        Ok(0)
    }

    /// `gettimeofday`
    pub fn gettimeofday(&mut self, time: u64, zone: u64) -> Answer {
        if time != 0 {
            let now = self.now(0)?;
            let mut out = Layout([0; 16]);
            out.u64(0, now.tv_sec.cast_unsigned());
            out.u64(8, (now.tv_nsec / 1000).cast_unsigned());
            self.memory.write(time, &out.0)?;
        }
        if zone != 0 {
            self.memory.write(zone, &[0; 8])?;
        }
        Ok(0)
    }

    /// `time`
    pub fn time(&mut self, address: u64) -> Answer {
        let now = self.now(0)?.tv_sec.cast_unsigned();
        if address != 0 {
            self.memory.write(address, &now.to_le_bytes())?;
        }
        Ok(now)
    }

    /// `nanosleep`
    pub fn nanosleep(&mut self, time: u64, rest: u64) -> Answer {
        self.clock_nanosleep(1, 0, time, rest)
    }

    /// `clock_nanosleep`: nothing but the run's end ends it before its time.
    pub fn clock_nanosleep(&mut self, number: u64, flags: u64, time: u64, _rest: u64) -> Answer {
        let mut time = self.duration(time)?;
        if !matches!(int(number), 0 | 1 | 7) {
            return Err(Errno::INVAL.into());
        }
        if flags & TIMER_ABSTIME != 0 {
            let now = self.now(number)?;
            let now = Duration::try_from(now).unwrap_or_default();
            time = time.saturating_sub(now);
        }
        // Beyond what the clock can count it is for ever.
        let Some(until) = Instant::now().checked_add(time) else {
            self.wait_forever()?;
            return Ok(0);
        };
        self.wait(&mut Vec::new(), Some(until))?;
        Ok(0)
    }

    /// Processor time so far, as `getrusage` and `times` tell it.
    pub fn cpu_used(&self) -> Duration {
        self.deadlines.cpu_used()
    }

    /// `times`, in hundredths of a second.
    pub fn times(&mut self, address: u64) -> Answer {
        if address != 0 {
            let ticks = u64::try_from(self.cpu_used().as_millis() / 10).unwrap_or(u64::MAX);
            let mut out = Layout([0; 32]);
            out.u64(0, ticks);
            self.memory.write(address, &out.0)?;
        }
        let wall = clock_gettime(ClockId::Boottime);
        let wall = Duration::try_from(wall).unwrap_or_default();
        u64::try_from(wall.as_millis() / 10).map_err(|_| Stop::Error(Errno::OVERFLOW))
    }
}
