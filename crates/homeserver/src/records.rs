//! Signed records of where the peers of members are: kept, and handed on to other members, so that
//! a room finds itself again when most of its nodes moved.
//!
//! A record is signed by its peer and verified by the transport before it comes here. It is handed
//! to a server only when there is a room in which that server, the peer's server and we are: where
//! somebody is at home is nobody else's business.

use bytes::Bytes;
use messagehub_protocol::{limits::MAX_RECORDS, wire::heads::Record};
use messagehub_store::{
    Snapshot, StoreError, memberships,
    peer_records::{self, Kept, PeerRecord},
    shared_heads,
};
use ruma::{OwnedServerName, ServerName};

use crate::{Homeserver, peers::Outbound};

/// Changed records looked at for one message. Those that are nobody's business are passed over, and
/// the rest comes with the next message.
const MAX_LOOKED_AT: usize = 256;

/// Records told to the transport at the start: as many as servers.
pub(crate) const MAX_REMEMBERED: usize = 4_096;

/// Records for one server, and up to which change they go.
#[derive(Debug, Default)]
pub(crate) struct News {
    pub(crate) records: Vec<Record>,
    /// To be noted when the server has them.
    pub(crate) up_to: i64,
}

/// The records that a server may not have yet.
///
/// # Errors
/// Fails when the database does.
pub(crate) async fn news_for(hs: &Homeserver, to: &ServerName) -> Result<News, StoreError> {
    let (us, to, since) = (hs.server_name().to_owned(), to.to_owned(), hs.peers.told(to));
    hs.store
        .read(move |snap| {
            let mut news = News { records: Vec::new(), up_to: since };
            for record in peer_records::list_since(snap, since, MAX_LOOKED_AT)? {
                if news.records.len() >= MAX_RECORDS {
                    break;
                }
                news.up_to = record.change;
                if is_for(snap, (&us, &to), &record)? {
                    news.records.push(Record(record.record));
                }
            }
            Ok(news)
        })
        .await
}

/// As [`news_for`], for an answer: whether it arrives is not heard of, so it counts as told.
///
/// # Errors
/// Fails when the database does.
pub(crate) async fn for_server(
    hs: &Homeserver,
    to: &ServerName,
) -> Result<Vec<Record>, StoreError> {
    let news = news_for(hs, to).await?;
    hs.peers.note_told(to, news.up_to);
    Ok(news.records)
}

fn is_for(
    snap: &Snapshot<'_>,
    (us, to): (&ServerName, &ServerName),
    record: &PeerRecord,
) -> Result<bool, StoreError> {
    if record.server == to {
        return Ok(false);
    }
    if record.server == us {
        return memberships::share_a_room(snap, us, to);
    }
    shared_heads::is_any_with_all(snap, [us, to, &record.server])
}

/// Gives the transport what another member handed on; it reports back what it believes.
///
/// # Errors
/// Fails when the database does.
pub(crate) async fn heard(
    hs: &Homeserver,
    from: &ServerName,
    records: Vec<Record>,
) -> Result<(), StoreError> {
    if records.is_empty() {
        return Ok(());
    }
    let (us, them) = (hs.server_name().to_owned(), from.to_owned());
    if hs.store.read(move |snap| memberships::share_a_room(snap, &us, &them)).await? {
        let records = records.into_iter().map(|record| Bytes::from(record.0)).collect();
        hs.peers.offer(Outbound::Records { records });
    }
    Ok(())
}

/// A record that the transport believes.
#[derive(Debug)]
pub(crate) struct Believed {
    pub(crate) server: OwnedServerName,
    pub(crate) peer_id: String,
    pub(crate) seq: u64,
    pub(crate) record: Bytes,
}

/// Keeps a record of ours or of a co-member. Says whether it is news.
///
/// # Errors
/// Fails when the database does.
pub(crate) async fn keep(hs: &Homeserver, believed: Believed) -> Result<Kept, StoreError> {
    let us = hs.server_name().to_owned();
    hs.store
        .write(move |txn| {
            let Believed { server, peer_id, seq, record } = believed;
            if server != us && !memberships::share_a_room(txn, &us, &server)? {
                return Ok(Kept::No);
            }
            peer_records::put_if_newer(txn, &server, (&peer_id, seq, &record))
        })
        .await
}

/// What is remembered of others, for the transport to begin with.
///
/// # Errors
/// Fails when the database does.
pub(crate) fn remembered(snap: &Snapshot<'_>, us: &ServerName) -> Result<Vec<Bytes>, StoreError> {
    let all = peer_records::list_since(snap, 0, MAX_REMEMBERED)?;
    let others = all.into_iter().filter(|record| record.server != us);
    Ok(others.map(|record| Bytes::from(record.record)).collect())
}
