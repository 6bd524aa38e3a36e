//! Asking guests whether they are up: their agent, then the command that is set for them.
//!
//! Invariant: only an answer, and with a command its success, is [`VmOutcome::Done`]; whatever else becomes of the question
//! means "not yet", and why.

use super::{Errand, Pending, Vms, uuid};
use mainstay_core::ids::{OpId, VmId};
use mainstay_core::{Input, VmOutcome};
use mainstay_hypervisor as hv;
use std::sync::Arc;
use std::time::Duration;

/// How long a command that tells whether a guest is ready may run. It is run again when it failed, so it must end before.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

impl Vms {
    /// The agent was asked whether it is there.
    pub(super) fn on_guest_answer(
        &mut self,
        op: OpId,
        vm: VmId,
        command: Option<Arc<str>>,
        result: Result<hv::OpOutput, hv::OpError>,
        inputs: &mut Vec<Input>,
        errands: &mut Vec<Errand>,
    ) {
        if let Err(reason) = answered(result) {
            inputs.push(failed(op, reason));
            return;
        }
        let Some(command) = command else {
            inputs.push(Input::VmDone { op, outcome: VmOutcome::Done });
            return;
        };
        let mut words = command.split_whitespace().map(str::to_owned);
        let Some(path) = words.next() else {
            inputs.push(failed(op, "the command set for this VM is empty".into()));
            return;
        };
        let run =
            hv::Op::GuestCommand { uuid: uuid(vm), path, args: words.collect(), timeout: COMMAND_TIMEOUT };
        self.submit(Pending::GuestCommand(op), run, errands);
    }
}

fn answered(result: Result<hv::OpOutput, hv::OpError>) -> Result<(), String> {
    match result {
        Ok(hv::OpOutput::Guest(hv::GuestAnswer::Answers)) => Ok(()),
        Ok(hv::OpOutput::Guest(hv::GuestAnswer::NoChannel)) => {
            Err("the VM has no channel for a guest agent".into())
        }
        Ok(hv::OpOutput::Guest(hv::GuestAnswer::Silent)) => Err("its guest agent does not answer".into()),
        Ok(other) => Err(unexpected(&other)),
        Err(error) => Err(error.to_string()),
    }
}

/// The command has ended, or is not waited for any longer.
pub(super) fn on_command_ended(op: OpId, result: Result<hv::OpOutput, hv::OpError>) -> Input {
    let reason = match result {
        Ok(hv::OpOutput::GuestEnded(hv::GuestExit::Code(0))) => {
            return Input::VmDone { op, outcome: VmOutcome::Done };
        }
        Ok(hv::OpOutput::GuestEnded(hv::GuestExit::Code(code))) => {
            format!("the command in its guest ended with exit code {code}")
        }
        Ok(hv::OpOutput::GuestEnded(hv::GuestExit::Signal(signal))) => {
            format!("the command in its guest was ended by signal {signal}")
        }
        Ok(hv::OpOutput::GuestEnded(hv::GuestExit::StillRuns)) => {
            format!("the command in its guest has not ended within {} s", COMMAND_TIMEOUT.as_secs())
        }
        Ok(other) => unexpected(&other),
        Err(error) => error.to_string(),
    };
    failed(op, reason)
}

/// libvirt's adapter answered another question: a fault of the program, told like any failure.
fn unexpected(output: &hv::OpOutput) -> String {
    format!("an answer to another question came ({output:?}); please report this")
}

fn failed(op: OpId, reason: String) -> Input {
    Input::VmDone { op, outcome: VmOutcome::Failed(reason.into()) }
}
