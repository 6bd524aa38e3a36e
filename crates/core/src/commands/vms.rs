//! Commands about one VM: its protection and its isolation response.

use super::admission;
use super::asked::{Asked, Until};
use crate::desk::Desk;
use crate::ids::{DatastoreName, VmId};
use crate::out::Out;
use crate::protected_list::OwnerList;
use crate::register::IsolationResponse;
use crate::time::{Span, Time};
use alloc::string::String;

/// A VM, and the datastore whose owner has it in its list.
struct Found {
    datastore: DatastoreName,
    vm: VmId,
}

pub(super) fn protect(desk: &mut Desk<'_>, wanted: &str, out: &mut Out<'_>) -> Result<Asked, String> {
    let found = find(desk, wanted, out.now)?;
    let warning = admission::admit_protection(&desk.cluster(), found.vm, out.now)?;
    let mut answer = list_of(desk, &found)?.set_unprotected(found.vm, false, out)?;
    if let Some(warning) = warning {
        answer.push_str(&alloc::format!("; warning: {warning}"));
    }
    Ok(later(found, answer))
}

pub(super) fn unprotect(desk: &mut Desk<'_>, wanted: &str, out: &mut Out<'_>) -> Result<Asked, String> {
    let found = find(desk, wanted, out.now)?;
    let answer = list_of(desk, &found)?.set_unprotected(found.vm, true, out)?;
    Ok(later(found, answer))
}

pub(super) fn set_isolation(
    desk: &mut Desk<'_>,
    wanted: &str,
    response: Option<IsolationResponse>,
    shutdown_timeout: Option<Span>,
    now: Time,
) -> Result<Asked, String> {
    let found = find(desk, wanted, now)?;
    let answer = list_of(desk, &found)?.set_isolation(found.vm, response, shutdown_timeout)?;
    Ok(later(found, answer))
}

fn find(desk: &Desk<'_>, wanted: &str, now: Time) -> Result<Found, String> {
    let mut found = desk.datastores.owned(now).filter_map(|datastore| {
        let vm = datastore.list()?.find(wanted)?;
        Some(Found { datastore: datastore.name().clone(), vm })
    });
    found.next().ok_or_else(|| match desk.vms.why_not(wanted) {
        Some(reason) => alloc::format!("{wanted} can't be protected: {reason}"),
        None => {
            alloc::format!("no VM called {wanted} is known on a datastore that {} owns", desk.config.me)
        }
    })
}

fn list_of<'a>(desk: &'a mut Desk<'_>, found: &Found) -> Result<&'a mut OwnerList, String> {
    let list = desk.datastores.get_mut(&found.datastore).and_then(|datastore| datastore.list_mut());
    list.ok_or_else(|| String::from("the ownership was lost: ask again"))
}

fn later(found: Found, answer: String) -> Asked {
    Asked::Later(Until::Vm(found.datastore, found.vm), answer)
}
