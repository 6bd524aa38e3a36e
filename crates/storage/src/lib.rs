//! Datastores: registers read and written with O_DIRECT on a thread per datastore, image lock probes.
