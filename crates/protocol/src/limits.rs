//! Every bound of the wire formats, each with its reason.
//!
//! `docs/wire.md` lists the same numbers for implementers; a test keeps the two alike.

/// Largest event in its canonical form, in bytes.
///
/// Spec: Client-Server API, "Size limits".
pub const MAX_PDU_BYTES: usize = 65_536;

/// Largest id (event, room, user, server name with its sigil), type or state key, in bytes.
///
/// Spec: Client-Server API, "Size limits".
pub const MAX_ID_BYTES: usize = 255;

/// Most `prev_events` in one event.
///
/// Spec: Server-Server API, "PDUs".
pub const MAX_PREV_EVENTS: usize = 20;

/// Most `auth_events` in one event.
///
/// Spec: Server-Server API, "PDUs".
pub const MAX_AUTH_EVENTS: usize = 10;

/// Most events in one transaction or frame.
///
/// Spec: Server-Server API, "Transactions".
pub const MAX_PDUS: usize = 50;

/// Most ephemeral units in one transaction or frame.
///
/// Spec: Server-Server API, "Transactions".
pub const MAX_EDUS: usize = 100;

/// Deepest nesting of arrays and objects in an event; the event itself is level 1.
///
/// `serde_json`, on which ruma's types stand, stops at 127; an event lies up to
/// [`ENVELOPE_DEPTH`] levels down in what carries it, and must be readable there too.
pub const MAX_JSON_DEPTH: usize = 120;

/// Levels that a frame or a request adds around an event: itself, `content`, `pdus`, and one spare.
pub const ENVELOPE_DEPTH: usize = 4;

/// Largest gossip frame in bytes.
///
/// The largest legal event, with the `server_keys` of all its signers, must fit with room to spare;
/// four times an event also lets a burst of small ones share one frame.
pub const MAX_FRAME_BYTES: usize = 256 * 1024;

/// Most `server_keys` objects in one frame: one for each signer of [`MAX_PDUS`] events, and the
/// origin's.
pub const MAX_FRAME_SERVER_KEYS: usize = MAX_PDUS + 1;

/// Largest `server_keys` object in its canonical form, in bytes.
///
/// In base64 it must fit the 16 KiB that an HTTP/2 server takes as headers by default, with the
/// other headers.
pub const MAX_SERVER_KEYS_BYTES: usize = 8 * 1024;

/// Most current verify keys in one `server_keys`: one a node of the identity.
pub const MAX_VERIFY_KEYS: usize = 4;

/// Most old verify keys in one `server_keys`: four years of monthly rotation, about 5,200 bytes.
pub const MAX_OLD_VERIFY_KEYS: usize = 48;

/// Most PeerIds in one `server_keys`: more devices than a person runs one identity on.
pub const MAX_PEER_IDS: usize = 16;

/// Longest validity of one `server_keys` in milliseconds: 7 days. Bounds what a stolen verify key
/// is good for.
pub const SERVER_KEYS_VALIDITY_MS: u64 = 7 * DAY_MS;

/// `server_keys` are renewed when less than this is left, in milliseconds: 3 days, so that a node
/// that is on every other day is never seen with expired ones.
pub const SERVER_KEYS_RENEWAL_MS: u64 = 3 * DAY_MS;

/// Grace for clocks that disagree when a validity is compared with our own clock, in milliseconds:
/// 1 hour, the size of the commonest mistake (daylight saving).
pub const CLOCK_GRACE_MS: u64 = 60 * 60 * 1000;

/// A signed request or frame is refused when its `origin_server_ts` differs from our clock by more
/// than this, in milliseconds: 10 minutes, enough for relaying and for clocks set by hand.
pub const FRESHNESS_MS: u64 = 10 * 60 * 1000;

/// Requests that the replay filter remembers of one origin: at 20 a second, the whole of
/// [`FRESHNESS_MS`]; of a faster origin the oldest are forgotten and all that is as old refused.
pub const MAX_REPLAY_PER_ORIGIN: usize = 12_288;

/// Origins that the replay filter follows at once. About 40 MiB if every one of them were at a
/// tenth of its bound, which the connection limits exclude.
pub const MAX_REPLAY_ORIGINS: usize = 1_024;

/// Longest `Authorization` header in bytes: the five parameters with the longest legal names.
pub const MAX_AUTHORIZATION_BYTES: usize = 1_024;

/// Longest request target (path and query) that is signed, in bytes: what HTTP servers commonly
/// take as a request line.
pub const MAX_URI_BYTES: usize = 8 * 1024;

/// Most rooms whose digests are told in one heads answer: the rooms a node is built for.
pub const MAX_DIGEST_ROOMS: usize = 5_000;

/// Most rooms whose heads are told in one heads request or answer: at [`MAX_HEADS_PER_ROOM`], 100
/// KiB.
pub const MAX_HEADS_ROOMS: usize = 100;

/// Most heads told of one room: what one event can name as `prev_events`, so that the next event
/// joins them all.
pub const MAX_HEADS_PER_ROOM: usize = MAX_PREV_EVENTS;

/// Most signed address records in one heads request or answer; the rest comes with the next.
pub const MAX_RECORDS: usize = 64;

/// Largest signed address record in bytes: sixteen addresses, some of them through relays.
pub const MAX_RECORD_BYTES: usize = 1_024;

/// Largest request, as JSON, that travels through another server, in bytes: transactions of ordinary
/// events; larger ones wait for a path.
pub const MAX_RELAYED_REQUEST_BYTES: usize = 1024 * 1024;

/// Largest answer, as JSON, that comes back through another server, in bytes: a hundred events of
/// ordinary size with their keys, and what the carrier holds for each.
pub const MAX_RELAYED_ANSWER_BYTES: usize = 2 * 1024 * 1024;

/// What sealing adds to a frame, in bytes: version, key id, nonce and tag.
pub const SEALED_OVERHEAD_BYTES: usize = 1 + 20 + 24 + 16;

/// Largest sealed frame in bytes: the largest frame, sealed.
pub const MAX_SEALED_FRAME_BYTES: usize = MAX_FRAME_BYTES + SEALED_OVERHEAD_BYTES;

/// Most room keys asked for at once: those of a few frames that came together.
pub const MAX_ROOM_KEYS_ASKED: usize = 64;

/// Most events that whoever passes a room key on must have applied. Those who left the room before
/// the last so many did are known to have left by all who talk to each other.
pub const MAX_ROOM_KEY_AFTER: usize = 32;

/// Longest content type and longest file name in a media description, in bytes: what a header
/// takes.
pub const MAX_MEDIA_TEXT_BYTES: usize = 255;

/// Largest media description in bytes: two texts whose every character is escaped, and the rest.
pub const MAX_MEDIA_DESCRIPTION_BYTES: usize = 8 * 1024;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
