//! The tokens that say how far a client has come.
//!
//! `s<pos>` comes from `/sync`, `t<pos>` from timelines; both mean "just after position `pos`",
//! so each may be used where the other is expected. A client that could not be given all messages
//! for its device at once has `s<pos>_<to device>`: of those it has what came up to the second one.

use messagehub_store::StreamPos;

/// How far a client has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SyncToken {
    /// In everything.
    pub(crate) pos: StreamPos,
    /// In the messages for its device.
    pub(crate) to_device: StreamPos,
}

impl SyncToken {
    /// The text for the client.
    pub(crate) fn text(self) -> String {
        match self.to_device == self.pos {
            true => sync_token(self.pos),
            false => format!("{}_{}", sync_token(self.pos), self.to_device.0),
        }
    }
}

/// The token of `/sync`: everything up to `pos` was shown.
pub(crate) fn sync_token(pos: StreamPos) -> String {
    format!("s{}", pos.0)
}

/// The token of a place in a timeline: just after `pos`.
pub(crate) fn timeline_token(pos: StreamPos) -> String {
    format!("t{}", pos.0)
}

/// Reads a token of any form as a place; `None` when it is none of ours.
pub(crate) fn parse(token: &str) -> Option<StreamPos> {
    parse_sync(token).map(|token| token.pos)
}

/// Reads a token of any form; `None` when it is none of ours.
pub(crate) fn parse_sync(token: &str) -> Option<SyncToken> {
    let digits = token.strip_prefix(['s', 't'])?;
    let (pos, to_device) = digits.split_once('_').unwrap_or((digits, digits));
    let number = |text: &str| text.parse().ok().map(StreamPos);
    let (pos, to_device) = (number(pos)?, number(to_device)?);
    Some(SyncToken { pos, to_device: to_device.min(pos) })
}

#[cfg(test)]
mod tests {
    use super::{StreamPos, SyncToken, parse, parse_sync, sync_token, timeline_token};

    #[test]
    fn tokens_are_read_back_and_others_refused() {
        assert_eq!(parse(&sync_token(StreamPos(17))), Some(StreamPos(17)));
        assert_eq!(parse(&timeline_token(StreamPos(-3))), Some(StreamPos(-3)));
        for foreign in ["", "17", "s", "s1.5", "x17", "s99999999999999999999", "t-", "s1_", "s_1"] {
            assert_eq!(parse(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_token_may_say_that_messages_are_left() {
        for (pos, to_device, text) in [(9, 9, "s9"), (9, 4, "s9_4")] {
            let token = SyncToken { pos: StreamPos(pos), to_device: StreamPos(to_device) };
            assert_eq!(token.text(), text);
            assert_eq!(parse_sync(text), Some(token));
            assert_eq!(parse(text), Some(StreamPos(pos)));
        }
        assert_eq!(parse_sync("s4_9").map(|token| token.to_device), Some(StreamPos(4)));
    }
}
