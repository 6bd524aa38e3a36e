//! The storage that fake hypervisors share: nothing but the locks of its images.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::locked;
use crate::error::OpError;

/// The image locks of a storage that several [`super::FakeHypervisor`]s share: path of the image -> who holds it.
#[derive(Clone, Default)]
pub struct FakeStorage {
    locks: Arc<Mutex<BTreeMap<String, String>>>,
}

impl FakeStorage {
    /// Takes the lock of an image in the name of somebody else, as a dead client whose lock the storage still keeps.
    pub fn lock(&self, path: &str, holder: &str) {
        locked(&self.locks).insert(path.to_owned(), holder.to_owned());
    }

    /// Frees the lock of an image, whoever holds it.
    pub fn unlock(&self, path: &str) {
        locked(&self.locks).remove(path);
    }

    /// Frees all locks of a host, as a storage does when it has noticed that a client died.
    pub fn release(&self, holder: &str) {
        locked(&self.locks).retain(|_, present| present != holder);
    }

    pub(super) fn take(&self, paths: &[String], holder: &str) -> Result<(), OpError> {
        let mut locks = locked(&self.locks);
        if let Some(path) = paths.iter().find(|path| locks.contains_key(*path)) {
            let message =
                format!("Failed to get \"write\" lock\nIs another process using the image [{path}]?");
            return Err(OpError::ImageLocked { message });
        }
        locks.extend(paths.iter().map(|path| (path.clone(), holder.to_owned())));
        Ok(())
    }
}
