//! `GET /v1/events?follow=true`: events of all hosts as JSON lines without end. This host's come at once, those of others by
//! asking them every [`POLL`]; they come in the order in which they get here.

use super::forward::{self, Envelope};
use super::{PEER_PATIENCE, Service};
use axum::body::Body;
use hyper::body::{Bytes, Frame};
use mainstay_api::EventRecord;
use mainstay_core::ids::HostId;
use mainstay_transport::Net;
use serde_json::Value;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;

/// How often other hosts are asked.
const POLL: Duration = Duration::from_millis(500);
/// Events of one host that are taken at once.
const BATCH: usize = 200;
/// Lines that wait for a slow reader; the tasks that fill this wait for him.
const LINES_MAX: usize = 64;

/// The body: lines, and the tasks that gather them, which end with it.
struct Lines {
    lines: mpsc::Receiver<Bytes>,
    _gatherers: JoinSet<()>,
}

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.lines.poll_recv(context).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}

/// Starts to follow: first what is there after `after` when it was given, then everything new.
pub(super) fn body(service: Arc<Service>, after: u64, limit: usize) -> Body {
    let (out, lines) = mpsc::channel(LINES_MAX);
    let mut gatherers = JoinSet::new();
    // From here on nothing of this host's is missed.
    let news = service.journal.follow();
    gatherers.spawn(gather(service, after, limit, news, out));
    Body::new(Lines { lines, _gatherers: gatherers })
}

/// First the page, then what is new after it, host by host, so that nothing falls in between.
async fn gather(
    service: Arc<Service>,
    after: u64,
    limit: usize,
    news: broadcast::Receiver<Arc<EventRecord>>,
    out: mpsc::Sender<Bytes>,
) {
    let mut told: BTreeMap<HostId, u64> = BTreeMap::new();
    told.insert(service.me.id.clone(), service.journal.newest());
    if after > 0 {
        let target = format!("/v1/events?after={after}&limit={limit}");
        let (_, page) = service.serve("GET", &target, None, &[]).await;
        for record in forward::records(page.get("events").cloned().unwrap_or_default()) {
            let newest = told.entry(record.host.clone()).or_default();
            *newest = record.sequence.max(*newest);
            if tell(&out, &record).await.is_err() {
                return;
            }
        }
    }
    // Ends with this task.
    let mut peers = JoinSet::new();
    for peer in &service.peers {
        let told = told.get(&peer.id).copied();
        peers.spawn(follow_peer(service.net.clone(), peer.id.clone(), told, out.clone()));
    }
    let told = told.get(&service.me.id).copied().unwrap_or(0);
    follow_own(&service, told, news, out).await;
}

async fn follow_own(
    service: &Service,
    mut told: u64,
    mut news: broadcast::Receiver<Arc<EventRecord>>,
    out: mpsc::Sender<Bytes>,
) {
    loop {
        match news.recv().await {
            Ok(record) if record.sequence <= told => {}
            Ok(record) => {
                told = record.sequence;
                if tell(&out, &record).await.is_err() {
                    return;
                }
            }
            // The reader was too slow: what it missed is still in memory.
            Err(broadcast::error::RecvError::Lagged(_)) => {
                for record in service.journal.after(told, BATCH) {
                    told = record.sequence;
                    if tell(&out, &record).await.is_err() {
                        return;
                    }
                }
            }
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// A host that can't be asked is asked again; what happened there meanwhile comes then.
async fn follow_peer(net: Net, peer: HostId, mut told: Option<u64>, out: mpsc::Sender<Bytes>) {
    loop {
        let path = format!(
            "/peer/tail?after={}&limit={}",
            told.unwrap_or(0),
            if told.is_some() { BATCH } else { 0 }
        );
        let envelope = Envelope::get(path);
        if let Ok((200, Value::Array(mut answer))) = forward::ask(&net, &peer, &envelope, PEER_PATIENCE).await
            && answer.len() == 2
        {
            let events = answer.pop().unwrap_or_default();
            let newest = answer.pop().as_ref().and_then(Value::as_u64).unwrap_or(0);
            for record in forward::records(events) {
                if tell(&out, &record).await.is_err() {
                    return;
                }
            }
            // Also when its count began anew (its state directory was emptied).
            told = Some(newest);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Fails when the reader is gone.
async fn tell(out: &mpsc::Sender<Bytes>, record: &EventRecord) -> Result<(), ()> {
    // Our own types always serialize.
    let Ok(mut line) = serde_json::to_vec(record) else { return Ok(()) };
    line.push(b'\n');
    out.send(Bytes::from(line)).await.map_err(|_| ())
}
