//! Where each register lies on a datastore. The one place for file names, offsets and sizes.
//!
//! ```text
//! <datastore>/.mainstay/<cluster-id>-<cluster-name>/
//!     host-12-hb          2 slots of   4 KiB    datastore heartbeat
//!     host-12-owner       2 slots of   4 KiB    part in the consensus on ownership
//!     host-12-poweron     2 slots of 256 KiB    power-on list
//!     host-12-agent.lock                        held by the running agent
//!     protectedlist       8 regions of 2 slots of 1 MiB; epoch e uses region e % 8
//!     vms/<uuid>-<xmlid>.xml                    domain XML
//! ```
//!
//! All offsets and lengths are multiples of [`BLOCK`], as O_DIRECT wants it on disks of both sector sizes.

use crate::error::EncodeError;
use mainstay_words::register::{LIST_REGIONS, RegisterId};
use mainstay_words::{HostId, VmId, XmlId};
use std::fmt;

/// The unit of I/O. 4,096 is a multiple of every sector size in use.
pub const BLOCK: usize = 4096;

/// What is written atomically. A slot's header line lies in the first so many bytes, so it is never torn.
pub const ATOMIC: usize = 512;

/// A heartbeat takes about 400 bytes: one block.
pub const HEARTBEAT_SLOT: usize = BLOCK;

/// An ownership block takes about 600 bytes: one block.
pub const OWNERSHIP_SLOT: usize = BLOCK;

/// A claim takes 250 to 400 bytes: room for over 600 VMs of one datastore on one host.
pub const POWER_ON_SLOT: usize = 256 * 1024;

/// An entry takes 250 to 450 bytes, and the settings of the cluster up to 128 KiB: room for 2,000 protected VMs on one datastore,
/// also in the middle of a failover (tested).
pub const LIST_SLOT: usize = 1024 * 1024;

/// Registers are double-buffered: while one slot is being written, the other one is whole.
pub const SLOTS: usize = 2;

/// The folder at the top of a datastore that holds one folder per cluster.
pub const TOP_FOLDER: &str = ".mainstay";

/// The file of the protected lists.
pub const LIST_FILE: &str = "protectedlist";

/// The folder for domain XML, in the cluster's folder.
pub const XML_FOLDER: &str = "vms";

/// Longest name that goes into a file name; file systems allow 255 for all parts together.
const NAME_LENGTH_MAX: usize = 100;

/// The cluster's id: a UUID, or a word without dashes. So a folder's name can be taken apart again at its first dash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(String);

impl ClusterId {
    /// Checks the form.
    pub fn parse(text: &str) -> Result<ClusterId, EncodeError> {
        if is_uuid(text) || (is_file_name(text) && !text.contains('-')) {
            Ok(ClusterId(text.to_string()))
        } else {
            Err(EncodeError::BadName {
                what: "the cluster id (a UUID, or a word without dashes)",
                name: text.into(),
            })
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the cluster's folder. Characters of `name` that file systems or shells dislike become `_`.
    pub fn folder_name(&self, name: &str) -> String {
        let clean = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
        let name: String = name.chars().take(NAME_LENGTH_MAX).map(clean).collect();
        format!("{}-{name}", self.0)
    }

    /// Takes a folder's name apart into the cluster's id and name.
    pub fn from_folder_name(folder: &str) -> Option<(ClusterId, String)> {
        let uuid = folder.get(..36).filter(|text| is_uuid(text));
        let id = match uuid {
            Some(uuid) => uuid,
            None => folder.split('-').next()?,
        };
        let name = folder.get(id.len()..)?.strip_prefix('-')?;
        Some((ClusterId::parse(id).ok()?, name.to_string()))
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Where a register lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The file, in the cluster's folder.
    pub file: String,
    /// How long that file is.
    pub file_size: u64,
    /// Where its slots begin.
    pub slots: [u64; SLOTS],
    /// How long each slot is.
    pub slot_size: usize,
}

/// Where that register lies; fails when the host's id can't be part of a file name.
pub fn locate(id: &RegisterId) -> Result<Location, EncodeError> {
    let slot_size = slot_size(id);
    let (file, region, regions) = match id {
        RegisterId::Heartbeat(host) => (host_file(host, "hb")?, 0, 1),
        RegisterId::Ownership(host) => (host_file(host, "owner")?, 0, 1),
        RegisterId::PowerOn(host) => (host_file(host, "poweron")?, 0, 1),
        RegisterId::ProtectedList(epoch) => (LIST_FILE.to_string(), epoch.0 % LIST_REGIONS, LIST_REGIONS),
    };
    let region_size = (slot_size * SLOTS) as u64;
    let start = region * region_size;
    Ok(Location {
        file,
        file_size: regions * region_size,
        slots: [start, start + slot_size as u64],
        slot_size,
    })
}

/// How long a slot of that register is.
pub fn slot_size(id: &RegisterId) -> usize {
    match id {
        RegisterId::Heartbeat(_) => HEARTBEAT_SLOT,
        RegisterId::Ownership(_) => OWNERSHIP_SLOT,
        RegisterId::PowerOn(_) => POWER_ON_SLOT,
        RegisterId::ProtectedList(_) => LIST_SLOT,
    }
}

/// The register of a host's file, by the file's name; `None` for `protectedlist` and for files that are no registers.
pub fn register_of_file(file: &str) -> Option<RegisterId> {
    let host = |suffix: &str| file.strip_suffix(suffix).filter(|host| is_file_name(host)).map(HostId::new);
    host("-hb")
        .map(RegisterId::Heartbeat)
        .or_else(|| host("-owner").map(RegisterId::Ownership))
        .or_else(|| host("-poweron").map(RegisterId::PowerOn))
}

/// The file that a running agent of that host holds a lock on.
pub fn agent_lock_file(host: &HostId) -> Result<String, EncodeError> {
    host_file(host, "agent.lock")
}

/// The file of a version of a VM's domain XML, in [`XML_FOLDER`].
pub fn xml_file(vm: VmId, xml: XmlId) -> String {
    format!("{vm}-{xml}.xml")
}

/// The reverse of [`xml_file`].
pub fn parse_xml_file(file: &str) -> Option<(VmId, XmlId)> {
    let stem = file.strip_suffix(".xml")?;
    let vm = VmId::parse(stem.get(..36).filter(|text| is_uuid(text))?)?;
    let xml = stem.get(36..)?.strip_prefix('-').filter(|text| text.len() == 16)?;
    Some((vm, XmlId(u64::from_str_radix(xml, 16).ok()?)))
}

/// Rounds up to whole blocks.
pub fn round_up(length: usize) -> usize {
    length.div_ceil(BLOCK) * BLOCK
}

fn host_file(host: &HostId, suffix: &str) -> Result<String, EncodeError> {
    if is_file_name(host.as_str()) {
        Ok(format!("{host}-{suffix}"))
    } else {
        Err(EncodeError::BadName { what: "the host id", name: host.as_str().into() })
    }
}

fn is_file_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= NAME_LENGTH_MAX
        && !text.starts_with('.')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.char_indices().all(|(index, c)| match index {
            8 | 13 | 18 | 23 => c == '-',
            _ => c.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_words::Epoch;

    #[test]
    fn registers_lie_apart_and_aligned() {
        let host = HostId::new("host-12");
        let mut spans = Vec::new();
        let lists = (0..LIST_REGIONS).map(|epoch| RegisterId::ProtectedList(Epoch(epoch)));
        let ids = [
            RegisterId::Heartbeat(host.clone()),
            RegisterId::Ownership(host.clone()),
            RegisterId::PowerOn(host),
        ];
        for id in ids.into_iter().chain(lists) {
            let at = locate(&id).expect("a good name");
            for slot in at.slots {
                assert_eq!(slot % BLOCK as u64, 0);
                assert_eq!(at.slot_size % BLOCK, 0);
                let end = slot + at.slot_size as u64;
                assert!(end <= at.file_size);
                spans.push((at.file.clone(), slot, end));
            }
        }
        spans.sort();
        assert_eq!(spans.len(), 22);
        for pair in spans.windows(2) {
            assert!(pair[0].0 != pair[1].0 || pair[0].2 <= pair[1].1, "{pair:?} overlap");
        }
    }

    #[test]
    fn file_names_follow_the_whole_host_id() {
        let host = HostId::new("host-12");
        assert_eq!(locate(&RegisterId::Heartbeat(host.clone())).expect("good").file, "host-12-hb");
        assert_eq!(register_of_file("host-12-owner"), Some(RegisterId::Ownership(host.clone())));
        assert_eq!(register_of_file("host-12-poweron"), Some(RegisterId::PowerOn(host)));
        assert_eq!(register_of_file("protectedlist"), None);
        for bad in ["", "../x", "a/b", ".hidden", "a b"] {
            assert!(locate(&RegisterId::Heartbeat(HostId::new(bad))).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn folder_names_can_be_taken_apart() {
        for id in ["6f1c0c1e-3c1f-4a5e-9f10-0123456789ab", "lab"] {
            let id = ClusterId::parse(id).expect("good");
            let folder = id.folder_name("my-cluster 1/ä");
            assert_eq!(ClusterId::from_folder_name(&folder), Some((id, "my-cluster_1__".to_string())));
        }
        assert!(ClusterId::parse("two-words").is_err());
        assert_eq!(ClusterId::from_folder_name("no_dash"), None);
    }

    #[test]
    fn xml_file_names_can_be_taken_apart() {
        let vm = VmId([7; 16]);
        assert_eq!(parse_xml_file(&xml_file(vm, XmlId(0xabc))), Some((vm, XmlId(0xabc))));
        assert_eq!(parse_xml_file("ä-1.xml"), None);
        assert_eq!(parse_xml_file("x.tmp"), None);
    }
}
