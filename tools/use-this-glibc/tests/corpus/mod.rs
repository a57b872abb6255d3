//! Programs to damage, the damage, and what comes of it.

mod damage;
mod world;

pub use damage::{Damage, Numbers, dynamic_bits, header_bits, lies, many_faults, truncations};
pub use world::{Base, Outcome, World};
