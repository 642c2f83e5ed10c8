//! Nothing but the runner in `tests/features.rs`, which reads the sentences in the folder `features/`.
