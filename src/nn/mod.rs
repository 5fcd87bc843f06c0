//! A small trainable network.
