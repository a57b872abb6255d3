//! Which symbol of which library needs which version, and whether it is there.
