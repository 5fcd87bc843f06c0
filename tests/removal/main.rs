//! Channels removed from networks: by rule, by hand, and on random trees.

mod trees;
