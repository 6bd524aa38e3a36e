//! The rehearsal: what each host's failure would come to. The driver gives the picture, which is quick; working it out may
//! take seconds in a large cluster and has a thread of its own.

use super::{Answer, Refusal, Service, ok};
use crate::driver::Question;
use mainstay_api::Rehearsal;
use mainstay_core::view::Role;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long the primary may take: a thousand hosts are worked out in less.
pub(super) const REHEARSAL_PATIENCE: Duration = Duration::from_secs(60);

impl Service {
    pub(super) async fn rehearsal(&self, may_forward: bool) -> Result<Answer, Refusal> {
        let view = self.look().await?.view;
        if view.role != Role::Primary {
            let primary = view.primary.filter(|primary| *primary != self.me.id && may_forward);
            let primary = primary.ok_or_else(|| {
                Refusal::new(503, "no primary is elected at the moment: try again in a few seconds")
            })?;
            let answer = self.forward(&primary, "GET", "/v1/rehearsal", false, REHEARSAL_PATIENCE).await;
            return answer.map_err(|error| {
                let primary = self.name(&primary);
                Refusal::new(504, format!("the primary {primary} could not be asked: {error}; try again, or ask on {primary} itself"))
            });
        }
        let (answer, answered) = oneshot::channel();
        let stopping = || Refusal::new(503, format!("the agent of {} is stopping: try again", self.me.name));
        self.questions.send(Question::Rehearse(answer)).await.map_err(|_| stopping())?;
        let scene = answered.await.map_err(|_| stopping())?;
        let host_names = self.host_names();
        let work = move || {
            let revision = scene.settings().revision;
            ok(Rehearsal { host_names, rehearsed: scene.rehearse(), revision })
        };
        tokio::task::spawn_blocking(work).await.map_err(|error| {
            Refusal::new(
                500,
                format!("the rehearsal has ended by a fault of the program ({error}); please report this"),
            )
        })?
    }
}
