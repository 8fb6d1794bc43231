//! The tokens that say how far a client has come.
//!
//! `s<pos>` comes from `/sync`, `t<pos>` from timelines; both mean "just after position `pos`",
//! so each may be used where the other is expected.

use messagehub_store::StreamPos;

/// The token of `/sync`: everything up to `pos` was shown.
pub(crate) fn sync_token(pos: StreamPos) -> String {
    format!("s{}", pos.0)
}

/// The token of a place in a timeline: just after `pos`.
pub(crate) fn timeline_token(pos: StreamPos) -> String {
    format!("t{}", pos.0)
}

/// Reads a token of either form; `None` when it is none of ours.
pub(crate) fn parse(token: &str) -> Option<StreamPos> {
    let digits = token.strip_prefix(['s', 't'])?;
    digits.parse().ok().map(StreamPos)
}

#[cfg(test)]
mod tests {
    use super::{StreamPos, parse, sync_token, timeline_token};

    #[test]
    fn tokens_are_read_back_and_others_refused() {
        assert_eq!(parse(&sync_token(StreamPos(17))), Some(StreamPos(17)));
        assert_eq!(parse(&timeline_token(StreamPos(-3))), Some(StreamPos(-3)));
        for foreign in ["", "17", "s", "s1.5", "x17", "s99999999999999999999", "t-"] {
            assert_eq!(parse(foreign), None, "{foreign}");
        }
    }
}
