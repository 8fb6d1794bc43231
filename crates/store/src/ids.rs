//! The integers that stand for things inside this database. They never leave it.

use rusqlite::{
    Result, ToSql,
    types::{FromSql, FromSqlResult, ToSqlOutput, ValueRef},
};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub i64);

        impl ToSql for $name {
            fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
                Ok(ToSqlOutput::from(self.0))
            }
        }

        impl FromSql for $name {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                i64::column_result(value).map(Self)
            }
        }
    };
}

id! {
    /// A place in the one order of everything a client can see.
    ///
    /// Positive ones are given out as things happen, without gaps. Negative ones
    /// belong to history that was fetched later and descend into the past.
    StreamPos
}
id! {
    /// A room this node knows.
    RoomNid
}
id! {
    /// An event this node keeps.
    EventNid
}
id! {
    /// A whole room state: the root of an immutable trie. See [`crate::room_state`].
    StateNid
}
id! {
    /// A pair of event type and state key.
    KeyNid
}
id! {
    /// A user id that some row mentions.
    UserNid
}
id! {
    /// A server name that some row mentions.
    ServerNid
}

impl StreamPos {
    /// Before everything.
    pub const ZERO: Self = Self(0);
}
