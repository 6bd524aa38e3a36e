//! Suspending protection, resuming it (R71), and confirming that a host is down.

use super::asked::{Asked, Until};
use crate::desk::Desk;
use crate::event::Event;
use crate::host_liveness::HostState;
use crate::ids::HostId;
use crate::out::Out;
use crate::settings::in_words;
use crate::time::Span;
use alloc::string::String;

/// A suspension may last so long at most: a forgotten one must end.
const SUSPENSION_MAX: Span = Span::from_secs(7 * 24 * 3_600);

pub(super) fn suspend(desk: &mut Desk<'_>, length: Span, out: &mut Out<'_>) -> Result<Asked, String> {
    if length == Span::ZERO || length > SUSPENSION_MAX {
        return Err(alloc::format!(
            "protection can be suspended for up to {}, not for {}",
            in_words(SUSPENSION_MAX),
            in_words(length)
        ));
    }
    let mut any = false;
    let timing = desk.config.timing;
    for datastore in desk.datastores.all_mut() {
        if datastore.ownership().epoch(out.now).is_some()
            && let Some(list) = datastore.list_mut()
        {
            any = true;
            list.suspend(length, &timing, out.now);
            datastore.want_review();
        }
    }
    if !any {
        return Err(alloc::format!(
            "{} owns no datastore at the moment: try again in a few seconds",
            desk.config.me
        ));
    }
    let answer = alloc::format!(
        "protection is to be suspended for {}; failovers in progress are completed first",
        in_words(length)
    );
    Ok(Asked::Later(Until::Suspension, answer))
}

pub(super) fn resume(desk: &mut Desk<'_>, out: &mut Out<'_>) -> Result<Asked, String> {
    let mut any = false;
    for datastore in desk.datastores.all_mut() {
        if datastore.ownership().epoch(out.now).is_some()
            && let Some(list) = datastore.list_mut()
        {
            any |= list.suspension().left(out.now).is_some();
            list.resume("a person resumed it", out);
            datastore.want_review();
        }
    }
    if !any {
        return Err(String::from("protection is not suspended"));
    }
    Ok(Asked::Later(Until::Suspension, String::from("protection goes on")))
}

/// A person says that a host is down.
pub(super) fn confirm_down(desk: &mut Desk<'_>, host: &HostId, out: &mut Out<'_>) -> Result<Asked, String> {
    desk.cluster().check_host(host)?;
    let state = desk.hosts.state(host).unwrap_or(HostState::Connected);
    if !matches!(state, HostState::Failed | HostState::Unguarded) {
        return Err(alloc::format!(
            "{host} is {state}: only a host that shows no sign of life can be confirmed to be down"
        ));
    }
    // What it wrote counts again as soon as it writes anything more.
    desk.datastores.confirm_down(host);
    out.event(Event::HostConfirmedDown { host: host.clone() });
    let when = if desk.datastores.lists().any(|list| list.suspension().stands()) {
        " when protection goes on (mainstay resume)"
    } else {
        ""
    };
    Ok(Asked::Now(alloc::format!("{host} counts as down: its VMs are restarted elsewhere{when}")))
}
