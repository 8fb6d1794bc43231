//! What local users do with rooms: make them, come, go, and look.

pub mod aliases;
pub mod create;
pub mod forget;
pub mod hierarchy;
pub mod invite;
pub mod join;
pub mod knock;
pub mod leave;
pub mod membership;
pub mod moderate;
pub mod public;
pub mod read;
pub(crate) mod restricted;
pub mod summary;
pub mod timestamp;
pub mod upgrade;
pub mod ways;

#[cfg(test)]
mod tests;
