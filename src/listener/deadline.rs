//! Bodies with a deadline: what does not come in time is not waited for.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::BoxError;
use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::time::Sleep;

use crate::limits::{Reason, met};

/// A body did not come in time.
#[derive(Debug, thiserror::Error)]
#[error("the body did not come within {0:?} (limits.body_timeout)")]
pub struct BodyTimeout(Duration);

/// A body that has to have come within a time.
pub(super) struct Deadline<B> {
    inner: B,
    timeout: Duration,
    sleep: Pin<Box<Sleep>>,
}

/// `body`, whole within `timeout`. One that is there already, or empty, is not watched.
pub(super) fn within<B>(body: B, timeout: Duration) -> Body
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    if body.is_end_stream() {
        return Body::new(body);
    }
    Body::new(Deadline { inner: body, timeout, sleep: Box::pin(tokio::time::sleep(timeout)) })
}

impl<B> HttpBody for Deadline<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        if self.sleep.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        met(Reason::Timeout);
        Poll::Ready(Some(Err(Box::new(BodyTimeout(self.timeout)))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
