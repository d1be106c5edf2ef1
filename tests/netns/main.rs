//! Whole programs on real sockets.
