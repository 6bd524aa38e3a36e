//! Where a VM is restarted: pure functions on a picture of the cluster.
