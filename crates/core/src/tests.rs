//! The shard as a whole. What one command does is tested beside it.
