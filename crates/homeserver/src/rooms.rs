//! What local users do with rooms: make them, come, go, and look.

pub mod aliases;
pub mod create;
pub mod forget;
pub mod invite;
pub mod join;
pub mod leave;
pub mod membership;
pub mod moderate;
pub mod read;

#[cfg(test)]
mod tests;
