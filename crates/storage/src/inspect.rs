//! A walk over a datastore, for people: what is in it, slot by slot. Only reads, needs no configuration, and may be done while
//! the datastore is in use (a slot that is being written then shows as damaged for a moment).

use crate::counters::SharedCounters;
use crate::error::StorageError;
use crate::register_file::{Access, RegisterFile};
use mainstay_formats::layout::{LIST_FILE, TOP_FOLDER, XML_FOLDER, locate, parse_xml_file, register_of_file};
use mainstay_formats::{Chosen, ClusterId, Slot, choose, decode_slot, read_header};
use mainstay_words::Epoch;
use mainstay_words::register::{LIST_REGIONS, RegisterId};
use std::fs;
use std::path::Path;

/// One cluster's folder on a datastore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterFolder {
    /// The cluster's id.
    pub cluster_id: ClusterId,
    /// Its name, as in the folder's name.
    pub cluster_name: String,
    /// Its registers, in the order of file names and regions. Regions of the protected list that were never used are left out.
    pub registers: Vec<RegisterReport>,
    /// The names of its XML files, sorted.
    pub xml_files: Vec<String>,
    /// Names of files that are none of Mainstay's, sorted.
    pub strangers: Vec<String>,
}

/// What one register holds, slot by slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterReport {
    /// The file that it is in.
    pub file: String,
    /// The register that was read.
    pub register: RegisterId,
    /// What each slot holds.
    pub slots: [Slot; 2],
    /// What that comes to.
    pub chosen: Chosen,
}

/// Walks over all clusters' folders on the datastore at `path`. One without any gives an empty list.
pub fn inspect(path: &Path) -> Result<Vec<ClusterFolder>, StorageError> {
    let top = path.join(TOP_FOLDER);
    if !path.is_dir() {
        return Err(StorageError::NotThere { path: path.to_path_buf() });
    }
    if !top.exists() {
        return Ok(Vec::new());
    }
    let mut folders = Vec::new();
    for name in list(&top)? {
        if let Some((cluster_id, cluster_name)) = ClusterId::from_folder_name(&name) {
            folders.push(inspect_folder(&top.join(&name), cluster_id, cluster_name)?);
        }
    }
    Ok(folders)
}

fn inspect_folder(
    folder: &Path,
    cluster_id: ClusterId,
    cluster_name: String,
) -> Result<ClusterFolder, StorageError> {
    let mut registers = Vec::new();
    let mut strangers = Vec::new();
    for file in list(folder)? {
        if file == LIST_FILE {
            for region in 0..LIST_REGIONS {
                registers.extend(inspect_list(folder, &cluster_id, region)?);
            }
        } else if let Some(register) = register_of_file(&file) {
            registers.extend(inspect_register(folder, &cluster_id, register)?);
        } else if file != XML_FOLDER && !file.ends_with("-agent.lock") {
            strangers.push(file);
        }
    }
    let xml_folder = folder.join(XML_FOLDER);
    let names = if xml_folder.is_dir() { list(&xml_folder)? } else { Vec::new() };
    let (xml_files, others): (Vec<_>, Vec<_>) =
        names.into_iter().partition(|name| parse_xml_file(name).is_some());
    strangers.extend(others.into_iter().map(|name| format!("{XML_FOLDER}/{name}")));
    Ok(ClusterFolder { cluster_id, cluster_name, registers, xml_files, strangers })
}

/// A region is of the highest epoch that one of its slots names; `None` when it was never used.
fn inspect_list(
    folder: &Path,
    cluster: &ClusterId,
    region: u64,
) -> Result<Option<RegisterReport>, StorageError> {
    let any = RegisterId::ProtectedList(Epoch(region));
    let Some(slots) = look(folder, &any)? else { return Ok(None) };
    let epochs = slots.iter().filter_map(|bytes| match read_header(bytes).ok()??.register {
        RegisterId::ProtectedList(epoch) => Some(epoch),
        RegisterId::Heartbeat(_) | RegisterId::PowerOn(_) | RegisterId::Ownership(_) => None,
    });
    let register = epochs.max().map_or(any, RegisterId::ProtectedList);
    let report = report(cluster, register, slots)?;
    Ok(Some(report).filter(|report| report.chosen != Chosen::Missing))
}

fn inspect_register(
    folder: &Path,
    cluster: &ClusterId,
    register: RegisterId,
) -> Result<Option<RegisterReport>, StorageError> {
    look(folder, &register)?.map(|slots| report(cluster, register, slots)).transpose()
}

fn look(folder: &Path, register: &RegisterId) -> Result<Option<[Vec<u8>; 2]>, StorageError> {
    let counters = SharedCounters::default();
    let at = locate(register)?;
    let file = RegisterFile::open(&folder.join(&at.file), Access::Read, &counters)?;
    file.map(|file| file.look(&at, &counters)).transpose()
}

fn report(
    cluster: &ClusterId,
    register: RegisterId,
    bytes: [Vec<u8>; 2],
) -> Result<RegisterReport, StorageError> {
    let file = locate(&register)?.file;
    let slots = bytes.map(|bytes| decode_slot(cluster, &register, &bytes));
    let chosen = choose(slots[0].clone(), slots[1].clone());
    Ok(RegisterReport { file, register, slots, chosen })
}

fn list(folder: &Path) -> Result<Vec<String>, StorageError> {
    let failed = |error| StorageError::io("listing", folder, error);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
