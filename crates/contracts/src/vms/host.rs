//! A host whose libvirt is tried: what can be ordered, what happens to it, what is heard.

use mainstay_words::{DatastoreName, Input, OpId, Time, Token, VmAction, VmId, XmlId};

/// Something that the core was told.
#[derive(Clone, Debug)]
pub struct Heard {
    /// When, by the host's clock.
    pub at: Time,
    /// What.
    pub input: Input,
}

/// Something that people and faults do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// The VM's user destroys it.
    UserDestroys,
    /// The VM's user shuts it down, or it powers itself off.
    UserShutsDown,
    /// QEMU is killed.
    QemuDies,
    /// QEMU obeys a SIGTERM that does not come from libvirt.
    QemuIsTerminated,
    /// Someone else holds the VM's image, or holds it no longer.
    ImageHeld(bool),
    /// Libvirtd ends.
    LibvirtdDies,
    /// Libvirtd stands still.
    LibvirtdHangs,
    /// Libvirtd runs again.
    LibvirtdReturns,
    /// No libvirtd answers on the host to which the VM would be migrated.
    DestinationDies,
    /// The VM's process stands still, or goes on.
    Frozen(bool),
    /// The agent ends, and starts anew.
    AgentRestarts,
}

/// A host with its libvirt. The domain XML of its VM is on the datastore.
pub trait HostUnderTest {
    /// The VM.
    fn vm(&self) -> VmId;
    /// Where its XML is, and which version; and a grant for this host.
    fn start(&self) -> (DatastoreName, XmlId, Token);
    /// The core orders something. Does not wait.
    fn order(&mut self, op: OpId, action: VmAction);
    /// Everything that the core was told so far.
    fn heard(&self) -> &[Heard];
    /// Lets something happen, or some time pass; `false` when nothing will happen any more.
    fn go_on(&mut self) -> bool;
    /// What the host's clock shows.
    fn now(&self) -> Time;
    /// Somebody does that; `false` when it can't be done here.
    fn happens(&mut self, deed: Deed) -> bool;
}
