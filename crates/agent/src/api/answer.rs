//! Answers: what every endpoint gives back, and refusals as one small JSON object.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::HeaderMap;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::http::{HeaderValue, StatusCode, header};
use nix::errno::Errno;
use serde::Serialize;

/// Why an answer that has begun does not have all, in its trailers: JSON, percent-encoded.
const REFUSAL: &str = "refusal";

/// A response of the API.
pub(crate) type Answer = hyper::Response<AnswerBody>;

/// What a response carries. Streams are polled only when the host has room for more.
pub(crate) enum AnswerBody {
    Whole(Option<Bytes>),
    Stream(Pin<Box<dyn Body<Data = Bytes, Error = io::Error>>>),
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(stream) => stream.as_mut().poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Stream(stream) => stream.size_hint(),
        }
    }
}

/// Why a request was not done.
#[derive(Debug, Serialize)]
pub(crate) struct Refusal {
    #[serde(skip)]
    status: StatusCode,
    /// A code of the API, or the name of an errno.
    code: String,
    message: String,
    /// The path that it is about, where the request names others too.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    /// The system call that was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    syscall: Option<&'static str>,
}

impl Refusal {
    /// The request makes no sense.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", message)
    }

    /// There is no such endpoint or process.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", message)
    }

    /// The endpoint is asked by another method.
    pub(crate) fn method() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method",
            "this endpoint is asked by another method",
        )
    }

    /// It was understood, and cannot be done.
    pub(crate) fn failed(code: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
    }

    fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            code: code.to_owned(),
            message: message.into(),
            path: None,
            syscall: None,
        }
    }

    /// The same with what it is about.
    pub(crate) fn about(self, syscall: &'static str, path: String) -> Self {
        Self {
            syscall: Some(syscall),
            path: Some(path),
            ..self
        }
    }

    pub(crate) fn into_answer(self) -> Answer {
        let status = self.status;
        let mut answer = json(&self);
        *answer.status_mut() = status;
        answer
    }

    /// The end of an answer that has begun and cannot go on.
    pub(crate) fn into_trailers(self) -> HeaderMap {
        let mut trailers = HeaderMap::new();
        // What is encoded is ASCII, which is always right.
        if let Ok(value) = HeaderValue::from_str(&percent_encoded(&json_text(&self))) {
            trailers.insert(REFUSAL, value);
        }
        trailers
    }
}

fn percent_encoded(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        use std::fmt::Write;
        if byte.is_ascii_alphanumeric() {
            text.push(char::from(*byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

/// A system call's refusal, by the name of its errno.
impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(number) => {
                let errno = Errno::from_raw(number);
                Self::failed(&format!("{errno:?}"), errno.desc())
            }
            None => Self::failed("EIO", error.to_string()),
        }
    }
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        io::Error::from(errno).into()
    }
}

/// What is serialized here are plain structures, which cannot fail.
pub(crate) fn json_text(content: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(content).unwrap_or_default()
}

/// An answer in JSON.
pub(crate) fn json(content: &impl Serialize) -> Answer {
    let mut answer = Answer::new(AnswerBody::Whole(Some(json_text(content).into())));
    answer.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    answer
}

/// Done, and nothing to say.
pub(crate) fn done() -> Answer {
    let mut answer = Answer::new(AnswerBody::Whole(None));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}

/// An answer whose body comes bit by bit.
pub(crate) fn stream(body: impl Body<Data = Bytes, Error = io::Error> + 'static) -> Answer {
    Answer::new(AnswerBody::Stream(Box::pin(body)))
}

/// hyper wants services that cannot fail otherwise than by an answer.
pub(crate) type Answered = Result<Answer, Infallible>;

impl std::fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} ({})", self.message, self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailers_hold_any_path() {
        let refusal = Refusal::failed("ENOENT", "none").about("open", "/a\n\"ü%".to_owned());
        let value = refusal.into_trailers().remove(REFUSAL).unwrap();
        let text = value.to_str().unwrap();
        assert!(
            text.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'%'),
            "{text}"
        );
        assert!(
            text.contains("path%22%3A%22%2Fa%5Cn%5C%22%C3%BC%25%22"),
            "{text}"
        );
    }
}
