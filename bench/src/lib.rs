//! What every measurement needs: what the system says of a process, and numbers as people read them.

pub mod process;
pub mod report;
