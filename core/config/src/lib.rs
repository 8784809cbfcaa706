//! core/config.
