//! core/io.
