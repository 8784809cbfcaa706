//! core/daemon.
