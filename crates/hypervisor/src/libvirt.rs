//! One connection to libvirtd: opening, events, reading domains and the host.
//!
//! Everything here may block, except the callbacks: call it on a thread from the pool. The callbacks run on libvirt's
//! event loop, which answers libvirtd's keepalives: they only put a message into a channel.
//!
//! Invariant: at most one call at a time on a connection, and no keepalives from our side. libvirt's client leaves a
//! pointer into a finished thread's stack behind when a thread that waits for an answer is woken by another that sends on
//! the same connection, and crashes on it later (CVE-2024-4418; open in Debian 12's 9.0.0-4+deb12u2). Other callers wake
//! it, and so do keepalives, which the event loop's thread sends: with both, one hang of libvirtd in four killed the test
//! process, with keepalives alone one in fourteen, without either none of forty. So deadlines and pings of our own (see the
//! observer) take the place of keepalives.

use std::ffi::{CStr, CString};
use std::sync::mpsc::Sender;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use libc::{c_int, c_void};
use mainstay_words::{Time, VmId};
use virt::connect::Connect;
use virt::domain::Domain as Handle;
use virt_sys as sys;

use crate::domain::{Domain, DomainState, DomainUuid, PauseReason};
use crate::error::{CallFailure, Error};
use crate::event::{HostInfo, Stray};
use crate::observer::Message;
use crate::spec::Spec;
use crate::stop_cause::StopCause;
use mainstay_processes as processes;

/// Starts libvirt's event loop, once per process. It must be registered before the first connection is opened.
pub(crate) fn start_event_loop() -> Result<(), Error> {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    let outcome = STARTED.get_or_init(|| {
        // libvirt would print every error to stderr; ours go into results.
        virt::error::clear_error_callback();
        virt::event::event_register_default_impl().map_err(|error| error.to_string())?;
        thread::Builder::new()
            .name("hv-events".into())
            .spawn(run_event_loop)
            .map(drop)
            .map_err(|error| error.to_string())
    });
    outcome.clone().map_err(|message| Error::EventLoop { message })
}

fn run_event_loop() {
    loop {
        if let Err(error) = virt::event::event_run_default_impl() {
            tracing::warn!(%error, "libvirt's event loop failed; it is tried again");
            // Without a pause an error that stays would take a whole CPU.
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Where a connection's callbacks put their news.
#[derive(Clone)]
pub(crate) struct Listener {
    pub(crate) generation: u64,
    pub(crate) messages: Sender<Message>,
}

/// An open connection. Dropping it makes calls: on a thread from the pool only.
pub(crate) struct Connection {
    connect: Connect,
    callbacks: Mutex<Vec<c_int>>,
    has_close_callback: bool,
}

impl Connection {
    pub(crate) fn open(uri: &str, listener: Option<Listener>) -> Result<Connection, CallFailure> {
        let connect = Connect::open(Some(uri)).map_err(|error| failure_of(&error, true))?;
        let mut connection =
            Connection { connect, callbacks: Mutex::new(Vec::new()), has_close_callback: false };
        if let Some(listener) = listener {
            connection.listen(listener)?;
        }
        Ok(connection)
    }

    fn listen(&mut self, listener: Listener) -> Result<(), CallFailure> {
        self.has_close_callback = self.register_close(listener.clone());
        self.register(sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle_callback(), listener.clone())?;
        // Older or other drivers may lack it; the resync finds changed metadata, too.
        if let Err(failure) =
            self.register(sys::VIR_DOMAIN_EVENT_ID_METADATA_CHANGE, metadata_callback(), listener)
            && failure.connection_lost
        {
            return Err(failure);
        }
        Ok(())
    }

    fn register(
        &self,
        event: u32,
        callback: sys::virConnectDomainEventGenericCallback,
        listener: Listener,
    ) -> Result<(), CallFailure> {
        let opaque = Box::into_raw(Box::new(listener)).cast::<c_void>();
        // Safety: the connection is open; `opaque` is a Listener, as both callbacks and `free_listener` expect.
        let id = unsafe {
            sys::virConnectDomainEventRegisterAny(
                self.connect.as_ptr(),
                std::ptr::null_mut(),
                event as c_int,
                callback,
                opaque,
                Some(free_listener),
            )
        };
        if id < 0 {
            let error = virt::error::Error::last_error();
            // Safety: after a failure libvirt has not kept `opaque` and does not free it.
            unsafe { free_listener(opaque) };
            return Err(self.failure(&error));
        }
        self.callbacks.lock().unwrap_or_else(PoisonError::into_inner).push(id);
        Ok(())
    }

    /// False where the driver has no close callback; then failing calls tell.
    fn register_close(&self, listener: Listener) -> bool {
        let opaque = Box::into_raw(Box::new(listener)).cast::<c_void>();
        // Safety: as in `register`.
        let result = unsafe {
            sys::virConnectRegisterCloseCallback(
                self.connect.as_ptr(),
                Some(on_close),
                opaque,
                Some(free_listener),
            )
        };
        if result < 0 {
            // Safety: as in `register`.
            unsafe { free_listener(opaque) };
        }
        result == 0
    }

    pub(crate) fn connect(&self) -> &Connect {
        &self.connect
    }

    /// Whether the socket is open, as far as this side knows. Does not ask libvirtd.
    pub(crate) fn is_alive(&self) -> bool {
        self.connect.is_alive().unwrap_or(false)
    }

    /// Classes an error of a call on this connection.
    pub(crate) fn failure(&self, error: &virt::error::Error) -> CallFailure {
        failure_of(error, !self.is_alive())
    }

    /// The cheapest question that libvirtd itself must answer.
    pub(crate) fn ping(&self) -> Result<(), CallFailure> {
        self.connect.get_lib_version().map(drop).map_err(|error| self.failure(&error))
    }

    pub(crate) fn lookup(&self, uuid: DomainUuid) -> Result<Handle, CallFailure> {
        Handle::lookup_by_uuid_string(&self.connect, &uuid.to_string()).map_err(|error| self.failure(&error))
    }

    pub(crate) fn list(&self) -> Result<Vec<(DomainUuid, String)>, CallFailure> {
        let handles = self.connect.list_all_domains(0).map_err(|error| self.failure(&error))?;
        // Identity is kept in the handle: no call per domain.
        handles
            .iter()
            .map(|handle| Ok((DomainUuid(*handle.get_uuid()?.as_bytes()), handle.get_name()?)))
            .collect::<Result<_, virt::error::Error>>()
            .map_err(|error| self.failure(&error))
    }

    /// `None`: libvirt answered that it does not know the domain. `as_of` is now, as its caller needs it in that case, too.
    pub(crate) fn read(&self, as_of: Time, uuid: DomainUuid) -> Result<Option<Domain>, CallFailure> {
        match self.lookup(uuid).and_then(|handle| self.read_handle(as_of, &handle, uuid)) {
            Ok(domain) => Ok(Some(domain)),
            Err(failure) if failure.is_no_domain() => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    fn read_handle(&self, as_of: Time, handle: &Handle, uuid: DomainUuid) -> Result<Domain, CallFailure> {
        let failed = |error: virt::error::Error| self.failure(&error);
        let flags = sys::VIR_DOMAIN_XML_INACTIVE | sys::VIR_DOMAIN_XML_SECURE;
        let xml = handle.get_xml_desc(flags).map_err(failed)?;
        let persistent = handle.is_persistent().map_err(failed)?;
        // A transient domain has no autostart, and asking is an error.
        let autostart = persistent && handle.get_autostart().map_err(failed)?;
        let name = handle.get_name().map_err(failed)?;
        // The state last, and the process after it: "shut off" together with a process then means that it is still there.
        let state = self.state(handle)?;
        let pid = find_pid(uuid);
        Ok(Domain { as_of, uuid, name, state, persistent, autostart, pid, spec: xml.parse::<Spec>(), xml })
    }

    pub(crate) fn state(&self, handle: &Handle) -> Result<DomainState, CallFailure> {
        let (state, reason) = handle.get_state().map_err(|error| self.failure(&error))?;
        Ok(state_of(state, reason))
    }

    pub(crate) fn host_info(&self, known_uuid: Option<DomainUuid>) -> Result<HostInfo, CallFailure> {
        let failed = |error: virt::error::Error| self.failure(&error);
        let node = self.connect.get_node_info().map_err(failed)?;
        let uuid = match known_uuid {
            Some(uuid) => Some(uuid),
            None => host_uuid(&self.connect.get_capabilities().map_err(failed)?),
        };
        Ok(HostInfo {
            hostname: self.connect.get_hostname().map_err(failed)?,
            uuid,
            cpus: node.cpus,
            memory_bytes: node.memory.saturating_mul(1024),
            memory_free_bytes: self.connect.get_free_memory().map_err(failed)?,
            libvirt_version: self.connect.get_lib_version().map_err(failed)?,
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // A callback holds a reference to the connection: without this it would never be closed. Failures mean that it is
        // broken already, and the rest is freed all the same.
        for id in self.callbacks.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // Safety: the connection is open, the id is one of its own.
            unsafe { sys::virConnectDomainEventDeregisterAny(self.connect.as_ptr(), id) };
        }
        if self.has_close_callback {
            // Safety: the connection is open.
            unsafe { sys::virConnectUnregisterCloseCallback(self.connect.as_ptr(), Some(on_close)) };
        }
        if let Err(error) = self.connect.close() {
            tracing::debug!(%error, "closing a libvirt connection failed");
        }
    }
}

fn failure_of(error: &virt::error::Error, connection_lost: bool) -> CallFailure {
    // Errors of the RPC layer also come up while the socket still looks open.
    let connection_lost = connection_lost || error.domain() == virt::error::ErrorDomain::Rpc;
    CallFailure { connection_lost, code: error.code().to_raw(), message: error.message().to_owned() }
}

fn find_pid(uuid: DomainUuid) -> Option<u32> {
    processes::find_qemu(VmId(uuid.0)).unwrap_or_else(|error| {
        tracing::warn!(%error, "QEMU processes can't be looked up");
        None
    })
}

/// QEMU processes whose domain is not among `active`.
pub(crate) fn strays(active: &[DomainUuid]) -> Vec<Stray> {
    let all = processes::find_all_qemu().unwrap_or_else(|error| {
        tracing::warn!(%error, "QEMU processes can't be looked up");
        Default::default()
    });
    all.into_iter()
        .map(|(vm, pid)| (DomainUuid(vm.0), pid))
        .filter(|(uuid, _)| !active.contains(uuid))
        .map(|(uuid, pid)| Stray { uuid, pid })
        .collect()
}

fn host_uuid(capabilities: &str) -> Option<DomainUuid> {
    let document = roxmltree::Document::parse(capabilities).ok()?;
    let host = document.root_element().children().find(|node| node.has_tag_name("host"))?;
    host.children().find(|node| node.has_tag_name("uuid"))?.text()?.parse().ok()
}

fn state_of(state: u32, reason: i32) -> DomainState {
    match state {
        sys::VIR_DOMAIN_RUNNING | sys::VIR_DOMAIN_BLOCKED => DomainState::Running,
        sys::VIR_DOMAIN_PAUSED => DomainState::Paused { reason: pause_reason(reason) },
        sys::VIR_DOMAIN_SHUTDOWN => DomainState::ShuttingDown,
        sys::VIR_DOMAIN_SHUTOFF => DomainState::ShutOff { cause: StopCause::from_reason(reason) },
        sys::VIR_DOMAIN_CRASHED => DomainState::Crashed,
        sys::VIR_DOMAIN_PMSUSPENDED => DomainState::PmSuspended,
        _ => DomainState::NoState,
    }
}

fn pause_reason(reason: i32) -> PauseReason {
    match u32::try_from(reason).unwrap_or(0) {
        sys::VIR_DOMAIN_PAUSED_USER => PauseReason::User,
        sys::VIR_DOMAIN_PAUSED_MIGRATION
        | sys::VIR_DOMAIN_PAUSED_POSTCOPY
        | sys::VIR_DOMAIN_PAUSED_POSTCOPY_FAILED => PauseReason::Migration,
        sys::VIR_DOMAIN_PAUSED_SAVE | sys::VIR_DOMAIN_PAUSED_DUMP | sys::VIR_DOMAIN_PAUSED_SNAPSHOT => {
            PauseReason::Saving
        }
        sys::VIR_DOMAIN_PAUSED_IOERROR => PauseReason::IoError,
        sys::VIR_DOMAIN_PAUSED_WATCHDOG => PauseReason::Watchdog,
        sys::VIR_DOMAIN_PAUSED_CRASHED => PauseReason::Crashed,
        sys::VIR_DOMAIN_PAUSED_STARTING_UP => PauseReason::StartingUp,
        sys::VIR_DOMAIN_PAUSED_SHUTTING_DOWN => PauseReason::ShuttingDown,
        _ => PauseReason::Other,
    }
}

fn lifecycle_callback() -> sys::virConnectDomainEventGenericCallback {
    type Lifecycle =
        unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void) -> c_int;
    type Generic = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);
    // Safety: libvirt casts it back to the first type for this event (VIR_DOMAIN_EVENT_CALLBACK does the same in C).
    Some(unsafe { std::mem::transmute::<Lifecycle, Generic>(on_lifecycle) })
}

fn metadata_callback() -> sys::virConnectDomainEventGenericCallback {
    type Metadata =
        unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, *const libc::c_char, *mut c_void);
    type Generic = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);
    // Safety: as in `lifecycle_callback`.
    Some(unsafe { std::mem::transmute::<Metadata, Generic>(on_metadata) })
}

/// Safety: `domain` is valid during the callback. Both calls are local.
unsafe fn identity(domain: sys::virDomainPtr) -> Option<(DomainUuid, String)> {
    let mut uuid = [0u8; 16];
    unsafe {
        if sys::virDomainGetUUID(domain, uuid.as_mut_ptr()) != 0 {
            return None;
        }
        let name = sys::virDomainGetName(domain);
        if name.is_null() {
            return None;
        }
        Some((DomainUuid(uuid), CStr::from_ptr(name).to_string_lossy().into_owned()))
    }
}

unsafe extern "C" fn on_lifecycle(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    event: c_int,
    detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    // Safety: `opaque` is the Listener that was registered, alive until `free_listener`.
    let listener = unsafe { &*opaque.cast::<Listener>() };
    if let Some((uuid, name)) = unsafe { identity(domain) } {
        // A failed send means that the observer has ended.
        let _ = listener.messages.send(Message::Lifecycle {
            generation: listener.generation,
            uuid,
            name,
            event,
            detail,
        });
    }
    0
}

unsafe extern "C" fn on_metadata(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _: c_int,
    _: *const libc::c_char,
    opaque: *mut c_void,
) {
    // Safety: as in `on_lifecycle`.
    let listener = unsafe { &*opaque.cast::<Listener>() };
    if let Some((uuid, name)) = unsafe { identity(domain) } {
        let _ = listener.messages.send(Message::Altered { generation: listener.generation, uuid, name });
    }
}

unsafe extern "C" fn on_close(_: sys::virConnectPtr, reason: c_int, opaque: *mut c_void) {
    // Safety: as in `on_lifecycle`.
    let listener = unsafe { &*opaque.cast::<Listener>() };
    let why = match u32::try_from(reason).unwrap_or(u32::MAX) {
        sys::VIR_CONNECT_CLOSE_REASON_ERROR => "an I/O error on its socket",
        sys::VIR_CONNECT_CLOSE_REASON_EOF => "libvirtd closed the connection (it ended or was restarted)",
        sys::VIR_CONNECT_CLOSE_REASON_KEEPALIVE => "libvirtd does not answer keepalives (it hangs)",
        sys::VIR_CONNECT_CLOSE_REASON_CLIENT => "closed by ourselves",
        _ => "a reason that libvirt does not name",
    };
    let _ = listener.messages.send(Message::Closed { generation: listener.generation, why: why.into() });
}

unsafe extern "C" fn free_listener(opaque: *mut c_void) {
    // Safety: made by Box::into_raw in `register` or `register_close`, freed once.
    drop(unsafe { Box::from_raw(opaque.cast::<Listener>()) });
}

/// Whether a text can be given to libvirt (the `virt` crate panics on NUL).
pub(crate) fn is_c_text(text: &str) -> bool {
    CString::new(text).is_ok()
}
