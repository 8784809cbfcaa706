//! plugins/sdk.
