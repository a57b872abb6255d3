//! A program and all that it needs, in the loader's order.
