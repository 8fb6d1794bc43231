//! Fuzz targets for every decoder of foreign bytes, and what drives them on any toolchain.
//!
//! Without a compiler that instruments code, a driver cannot see which branches an input took. What
//! it sees is how far the input came: each target says with which words it was refused, or what
//! became of it. An input that came to a new end is kept, and later ones are made from it.

pub mod driver;
pub mod mutate;
pub mod targets;

#[cfg(test)]
mod tests;
