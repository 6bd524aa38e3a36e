//! What the agents say, as they say it, merged into one stream.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

use mainstay_api::EventRecord;

use super::api;

/// Follows several agents until dropped.
pub struct Follow {
    news: Receiver<EventRecord>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Follow {
    /// Follows the agents of these hosts: (id, socket). Each tells its own events only, since those come at once, while an
    /// agent asks the others for theirs just twice a second.
    pub fn begin(agents: Vec<(String, PathBuf)>) -> Follow {
        let stop = Arc::new(AtomicBool::new(false));
        let (tell, news) = channel();
        let threads = agents
            .into_iter()
            .map(|(id, socket)| {
                let (tell, stop) = (tell.clone(), stop.clone());
                std::thread::spawn(move || {
                    // An agent that ends or can't be followed is missing in the narration; the verdict comes from outside.
                    let _ = api::follow(&socket, |record| {
                        let own = record.filter(|r| r.host.as_str() == id);
                        own.is_none_or(|r| tell.send(r).is_ok()) && !stop.load(Ordering::Relaxed)
                    });
                })
            })
            .collect();
        Follow { news, stop, threads }
    }

    /// What has been said since the last call.
    pub fn news(&self) -> Vec<EventRecord> {
        self.news.try_iter().collect()
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so itself.
            let _ = thread.join();
        }
    }
}
