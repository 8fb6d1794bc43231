//! A room in memory and graphs drawn in text, for the tests of this crate.

mod dag;
mod node;
mod people;

pub(crate) use self::{
    dag::{Drawn, draw},
    node::Node,
    people::{Person, at, person, ring},
};
