//! One request: from its buffers to its answer.

use std::panic::{AssertUnwindSafe, catch_unwind};

use log::debug;
use virtiofsd::descriptor_utils::{Reader, Writer};
use virtiofsd::filesystem::FileSystem;
use virtiofsd::fuse::{InHeader, OutHeader};
use virtiofsd::server::Server;

use super::Memory;
use super::ring::Chain;

/// FORGET, INTERRUPT, DESTROY and BATCH_FORGET: nobody waits for an answer (`linux/fuse.h`).
const WITHOUT_ANSWER: [u32; 4] = [2, 36, 38, 42];
const ANSWER_LENGTH: u32 = 16;

/// What became of a request.
#[derive(Debug)]
pub enum Outcome {
    /// It is to be given back with so many bytes written.
    Answered(u32),
    /// Its buffers are no request, or leave no room for an answer.
    Unanswerable(String),
}

/// Works on a request. Whatever is in its buffers, this returns.
pub fn work_on<F: FileSystem + Sync>(server: &Server<F>, memory: &Memory, chain: Chain) -> Outcome {
    let reader = match Reader::new(memory, chain.clone()) {
        Ok(reader) => reader,
        Err(error) => return Outcome::Unanswerable(error.to_string()),
    };
    let writer = match Writer::new(memory, chain) {
        Ok(writer) => writer,
        Err(error) => return Outcome::Unanswerable(error.to_string()),
    };
    let room = writer.available_bytes();
    let header = reader.clone().read_obj::<InHeader>();
    let answer = writer.clone();
    let work = AssertUnwindSafe(|| server.handle_message(reader, writer, None::<&mut ()>));
    let (error, reason) = match catch_unwind(work) {
        Ok(Ok(length)) => match u32::try_from(length) {
            Ok(length) if length as usize <= room => return Outcome::Answered(length),
            _ => (libc::EIO, "its answer is too long".to_owned()),
        },
        Ok(Err(error)) => (libc::EINVAL, error.to_string()),
        Err(_) => (libc::EIO, "the file-system layer panicked".to_owned()),
    };
    match header {
        Ok(header) => refuse(header, answer, error, reason),
        Err(_) => Outcome::Unanswerable(reason),
    }
}

/// Answers with an error.
fn refuse(header: InHeader, mut writer: Writer, error: i32, reason: String) -> Outcome {
    // No louder: a guest could fill the host's log.
    debug!(
        "Request {} of type {} failed: {reason}",
        header.unique, header.opcode
    );
    if WITHOUT_ANSWER.contains(&header.opcode) {
        return Outcome::Answered(0);
    }
    let answer = OutHeader {
        len: ANSWER_LENGTH,
        error: -error,
        unique: header.unique,
    };
    match writer.write_obj(answer) {
        Ok(()) => Outcome::Answered(ANSWER_LENGTH),
        Err(_) => Outcome::Unanswerable(reason),
    }
}
