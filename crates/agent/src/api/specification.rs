//! What the host asks to be run: a JSON object at the head of the request's body, behind its length.

use std::collections::BTreeMap;

use hyper::body::{Body, Bytes, Incoming};
use serde::Deserialize;

use super::answer::Refusal;

/// As long as the command channel's longest command.
const LIMIT: usize = 16 * 1024 * 1024;
const LENGTH_BYTES: usize = size_of::<u32>();

/// A program and all that belongs to its start.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Specification {
    /// The program and its arguments. With `script` the shell alone.
    pub(crate) argv: Vec<String>,
    /// A line for that shell, which may be longer than an argument.
    pub(crate) script: Option<String>,
    /// Over the agent's own PATH and HOME.
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
    #[serde(default = "root")]
    pub(crate) cwd: String,
    /// A name of the guest's, or a number.
    pub(crate) user: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) terminal: Option<Size>,
    /// It goes on when the request ends.
    #[serde(default)]
    pub(crate) detached: bool,
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Size {
    pub(crate) columns: u16,
    pub(crate) rows: u16,
}

fn root() -> String {
    "/".to_owned()
}

/// Reads it, and gives back what of the body came along behind it: the first of standard input.
pub(crate) async fn read(body: &mut Incoming) -> Result<(Specification, Bytes), Refusal> {
    let mut head = Vec::new();
    loop {
        if let Some(length) = announced(&head)? {
            let end = LENGTH_BYTES.saturating_add(length);
            if head.len() >= end {
                let rest = Bytes::from(head.split_off(end));
                let text = head.get(LENGTH_BYTES..).unwrap_or_default();
                let specification = serde_json::from_slice(text).map_err(|error| {
                    Refusal::bad_request(format!("the specification is not right: {error}"))
                })?;
                return Ok((specification, rest));
            }
        }
        match next_data(body).await {
            Some(Ok(data)) => head.extend_from_slice(&data),
            Some(Err(error)) => return Err(Refusal::bad_request(error.to_string())),
            None => {
                return Err(Refusal::bad_request(
                    "the request ends within its specification",
                ));
            }
        }
    }
}

fn announced(head: &[u8]) -> Result<Option<usize>, Refusal> {
    let Some(length) = head.first_chunk() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if length > LIMIT {
        return Err(Refusal::failed(
            "too-large",
            format!("a specification of {length} bytes is over the limit of {LIMIT}"),
        ));
    }
    Ok(Some(length))
}

/// The next bytes of a body; trailers are skipped.
pub(crate) async fn next_data(body: &mut Incoming) -> Option<Result<Bytes, hyper::Error>> {
    loop {
        let frame =
            std::future::poll_fn(|context| std::pin::Pin::new(&mut *body).poll_frame(context))
                .await?;
        match frame.map(hyper::body::Frame::into_data) {
            Ok(Ok(data)) => return Some(Ok(data)),
            Ok(Err(_trailers)) => {}
            Err(error) => return Some(Err(error)),
        }
    }
}
