//! What waits for other servers, for `messagehub status`: for whom, since when, why it is not gone,
//! and what was refused.

use messagehub_homeserver::{Homeserver, outbox};
use messagehub_store::{StoreError, outbox::Kind};
use serde::{Deserialize, Serialize};

/// Servers and refusals shown to people; JSON has up to a hundred of each.
const SHOWN: usize = 10;

/// The outbox.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Backlog {
    /// Entries that wait.
    pub(crate) entries: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Entries dropped since the outbox was full, in all.
    pub(crate) dropped_full: u64,
    /// Entries dropped since they had come to be worth nothing, in all.
    pub(crate) dropped_expired: u64,
    /// By server, those who wait longest first.
    pub(crate) waiting: Vec<Waiting>,
    /// What its destination will not take, the latest first.
    pub(crate) refused: Vec<Refused>,
}

/// What waits for one server.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Waiting {
    /// The server.
    pub(crate) server_name: String,
    /// Entries.
    pub(crate) entries: u64,
    /// Those of them that are invites.
    pub(crate) invites: u64,
    /// Bytes.
    pub(crate) bytes: u64,
    /// When the oldest was queued, in milliseconds since the Unix epoch.
    pub(crate) since: u64,
    /// When it was last tried in vain since the start, likewise.
    pub(crate) tried_at: Option<u64>,
    /// Why that failed.
    pub(crate) reason: Option<String>,
}

/// What a destination will not take.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Refused {
    /// The server.
    pub(crate) server_name: String,
    /// `invite`, `leave`, `event` or `edu`.
    pub(crate) kind: String,
    /// The room.
    pub(crate) room_id: Option<String>,
    /// The user.
    pub(crate) user_id: Option<String>,
    /// The destination's words.
    pub(crate) reason: String,
    /// When, in milliseconds since the Unix epoch.
    pub(crate) at: u64,
}

/// Asks the store, and what is known of the last attempts.
pub(crate) async fn gather(hs: &Homeserver) -> Result<Backlog, StoreError> {
    let outbox::Overview { totals, backlogs, refused } = outbox::overview(hs).await?;
    let waiting = backlogs.into_iter().map(|outbox::Backlog { waiting, last_attempt }| Waiting {
        server_name: waiting.destination.to_string(),
        entries: waiting.entries,
        invites: waiting.invites,
        bytes: waiting.bytes,
        since: waiting.since_ts,
        tried_at: last_attempt.as_ref().map(|attempt| attempt.at_ms),
        reason: last_attempt.map(|attempt| attempt.reason),
    });
    let refused = refused.into_iter().map(|refused| Refused {
        server_name: refused.destination.to_string(),
        kind: kind_name(refused.kind).to_owned(),
        room_id: refused.room_id,
        user_id: refused.user_id,
        reason: refused.reason,
        at: refused.refused_ts,
    });
    Ok(Backlog {
        entries: totals.entries,
        bytes: totals.bytes,
        dropped_full: totals.dropped_full,
        dropped_expired: totals.dropped_expired,
        waiting: waiting.collect(),
        refused: refused.collect(),
    })
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Edu => "edu",
        Kind::Invite => "invite",
        Kind::Leave => "leave",
        Kind::Pdu => "event",
    }
}

impl Backlog {
    /// For people, a line each; `now` in milliseconds since the Unix epoch.
    pub(crate) fn human(&self, now: u64) -> Vec<String> {
        let mut lines = vec![match self.entries {
            0 => "waiting      nothing".to_owned(),
            entries => format!("waiting      {entries} entries, {} bytes", self.bytes),
        }];
        for waiting in self.waiting.iter().take(SHOWN) {
            let invites = match waiting.invites {
                0 => String::new(),
                invites => format!(" ({invites} invites)"),
            };
            let reason = waiting.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            lines.push(format!(
                "  {} for {}{invites}, since {}{reason}",
                waiting.entries,
                waiting.server_name,
                ago(now, waiting.since)
            ));
        }
        for refused in self.refused.iter().take(SHOWN) {
            let about = refused.user_id.as_ref().or(refused.room_id.as_ref());
            lines.push(format!(
                "  refused {} by {}{}, {}: {}",
                refused.kind,
                refused.server_name,
                about.map(|about| format!(" ({about})")).unwrap_or_default(),
                ago(now, refused.at),
                refused.reason
            ));
        }
        lines
    }
}

/// How long ago something was, in the largest unit that fits.
fn ago(now: u64, then: u64) -> String {
    let seconds = now.saturating_sub(then) / 1_000;
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3_600 => format!("{} min ago", seconds / 60),
        3_600..86_400 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_what_waits_and_what_was_refused() {
        let backlog = Backlog {
            entries: 3,
            bytes: 900,
            waiting: vec![Waiting {
                server_name: "b".to_owned(),
                entries: 3,
                invites: 1,
                bytes: 900,
                since: 0,
                tried_at: Some(1),
                reason: Some("the server cannot be reached".to_owned()),
            }],
            refused: vec![Refused {
                server_name: "c".to_owned(),
                kind: "invite".to_owned(),
                room_id: None,
                user_id: Some("@u:c".to_owned()),
                reason: "full".to_owned(),
                at: 7_000_000,
            }],
            ..Backlog::default()
        };
        assert_eq!(
            backlog.human(7_200_000),
            [
                "waiting      3 entries, 900 bytes",
                "  3 for b (1 invites), since 2 h ago: the server cannot be reached",
                "  refused invite by c (@u:c), 3 min ago: full",
            ]
        );
        assert_eq!(Backlog::default().human(0), ["waiting      nothing"]);
        assert_eq!(ago(200_000_000, 0), "2 days ago");
        assert_eq!(ago(5_000, 9_000), "0 s ago");
    }
}
