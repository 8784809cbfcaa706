//! plugins/bundled.
