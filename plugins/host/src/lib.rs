//! plugins/host.
