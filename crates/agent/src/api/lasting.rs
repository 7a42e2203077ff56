//! Answers to what may last: the host gives up an answer that stands still, so that spaces, which JSON may begin with, tell
//! it that the work goes on.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame};
use serde::Serialize;
use tokio::time::{Interval, interval, timeout};

use super::answer::{self, Answer, Refusal};

/// So long nothing is said; the host waits for a minute.
const SILENCE: Duration = Duration::from_secs(10);

/// The outcome of work as JSON. Where it lasts, the answer begins before it is done, and what fails then is told in the
/// trailers.
pub(super) async fn json<T: Serialize + 'static>(
    work: impl Future<Output = io::Result<T>> + 'static,
) -> Result<Answer, Refusal> {
    let mut work = Box::pin(work);
    match timeout(SILENCE, &mut work).await {
        Ok(outcome) => Ok(answer::json(&outcome?)),
        Err(_late) => Ok(answer::stream(Lasting {
            work: Some(work),
            // Its first tick comes at once.
            signs: interval(SILENCE),
        })),
    }
}

struct Lasting<F> {
    /// None when it is done.
    work: Option<Pin<Box<F>>>,
    signs: Interval,
}

impl<T: Serialize, F: Future<Output = io::Result<T>>> Body for Lasting<F> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let lasting = self.get_mut();
        let Some(work) = &mut lasting.work else {
            return Poll::Ready(None);
        };
        let Poll::Ready(outcome) = work.as_mut().poll(context) else {
            ready!(lasting.signs.poll_tick(context));
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b" ")))));
        };
        lasting.work = None;
        Poll::Ready(Some(Ok(match outcome {
            Ok(outcome) => Frame::data(answer::json_text(&outcome).into()),
            Err(error) => Frame::trailers(Refusal::from(error).into_trailers()),
        })))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::{Instant, sleep};

    use super::*;

    /// Everything that an answer carries: its text, and whether trailers came behind it.
    async fn read(answer: Answer) -> (String, bool) {
        let mut body = answer.into_body();
        let mut text = String::new();
        while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            match frame.unwrap().into_data() {
                Ok(data) => text.push_str(std::str::from_utf8(&data).unwrap()),
                Err(frame) => return (text, frame.is_trailers()),
            }
        }
        (text, false)
    }

    async fn after(seconds: u64, outcome: io::Result<u8>) -> io::Result<u8> {
        sleep(Duration::from_secs(seconds)).await;
        outcome
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_done_soon_is_an_answer_of_its_own() {
        let answer = json(after(9, Ok(7))).await.unwrap();
        assert_eq!(read(answer).await, ("7".to_owned(), false));
        let refused = after(9, Err(io::Error::from_raw_os_error(libc::EIO)));
        assert!(json(refused).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn what_lasts_says_so_every_ten_seconds_until_it_is_done() {
        let begun = Instant::now();
        let answer = json(after(95, Ok(7))).await.unwrap();
        assert_eq!(begun.elapsed(), SILENCE);
        assert_eq!(read(answer).await, (format!("{}7", " ".repeat(9)), false));
        assert_eq!(begun.elapsed(), Duration::from_secs(95));
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_late_is_told_in_the_trailers() {
        let refused = after(25, Err(io::Error::from_raw_os_error(libc::EIO)));
        let answer = json(refused).await.unwrap();
        assert_eq!(read(answer).await, ("  ".to_owned(), true));
    }
}
