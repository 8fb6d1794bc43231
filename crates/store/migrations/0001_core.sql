-- Rooms, events, room state, membership: what the core of the store owns.
-- Integer keys are given out by counters in memory that never go back.

-- The last position given out, and the lowest (history fetched later).
CREATE TABLE positions (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    last  INTEGER NOT NULL,
    first INTEGER NOT NULL
) STRICT;
INSERT INTO positions VALUES (1, 0, 0);

CREATE TABLE user_names (
    nid     INTEGER PRIMARY KEY,
    user_id TEXT NOT NULL UNIQUE,
    server  INTEGER NOT NULL
) STRICT;

CREATE TABLE server_names (
    nid  INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE rooms (
    nid     INTEGER PRIMARY KEY,
    room_id TEXT NOT NULL UNIQUE,
    version TEXT NOT NULL,
    state   INTEGER NOT NULL
) STRICT;

-- The current state of a room as it was at each position where it changed.
CREATE TABLE current_states (
    room INTEGER NOT NULL,
    pos  INTEGER NOT NULL,
    root INTEGER NOT NULL,
    PRIMARY KEY (room, pos)
) STRICT, WITHOUT ROWID;

-- standing: 0 accepted, 1 soft-failed, 2 rejected, 3 outlier.
-- device, txn_id: the request of a local client that made the event.
-- json: the received bytes; last, so that reading the other columns does not pass it.
CREATE TABLE events (
    nid          INTEGER PRIMARY KEY,
    event_id     TEXT NOT NULL UNIQUE,
    room         INTEGER NOT NULL,
    depth        INTEGER NOT NULL,
    standing     INTEGER NOT NULL,
    pos          INTEGER,
    state_before INTEGER,
    state_after  INTEGER,
    redacted_by  INTEGER,
    device       TEXT,
    txn_id       TEXT,
    json         TEXT NOT NULL
) STRICT;
CREATE INDEX events_by_pos ON events (pos) WHERE pos IS NOT NULL;
CREATE INDEX events_by_room ON events (room, pos) WHERE pos IS NOT NULL;

CREATE TABLE forward_extremities (
    room  INTEGER NOT NULL,
    event INTEGER NOT NULL,
    PRIMARY KEY (room, event)
) STRICT, WITHOUT ROWID;

-- prev_events that placed events name and that are not placed here themselves.
CREATE TABLE backward_extremities (
    room       INTEGER NOT NULL,
    missing_id TEXT NOT NULL,
    event      INTEGER NOT NULL,
    PRIMARY KEY (room, missing_id, event)
) STRICT, WITHOUT ROWID;

CREATE TABLE state_keys (
    nid       INTEGER PRIMARY KEY,
    kind      TEXT NOT NULL,
    state_key TEXT NOT NULL,
    UNIQUE (kind, state_key)
) STRICT;

-- Each row packs the nodes that one change of a state made. See room_state.rs.
CREATE TABLE state_nodes (
    nid  INTEGER PRIMARY KEY,
    data BLOB NOT NULL
) STRICT;

-- membership: 0 leave, 1 ban, 2 invite, 3 knock, 4 join.
CREATE TABLE memberships (
    room       INTEGER NOT NULL,
    user       INTEGER NOT NULL,
    server     INTEGER NOT NULL,
    membership INTEGER NOT NULL,
    event      INTEGER,
    pos        INTEGER NOT NULL,
    stripped   TEXT,
    PRIMARY KEY (room, user)
) STRICT, WITHOUT ROWID;
CREATE INDEX memberships_by_user ON memberships (user, pos);
CREATE INDEX memberships_by_server ON memberships (server, membership, room);
CREATE INDEX memberships_by_kind ON memberships (room, membership, server);

CREATE TABLE pending_events (
    nid      INTEGER PRIMARY KEY,
    event_id TEXT NOT NULL UNIQUE,
    room_id  TEXT NOT NULL,
    origin   TEXT NOT NULL,
    json     TEXT NOT NULL
) STRICT;
CREATE INDEX pending_events_by_room ON pending_events (room_id);

CREATE TABLE pending_missing (
    missing_id TEXT NOT NULL,
    pending    INTEGER NOT NULL,
    PRIMARY KEY (missing_id, pending)
) STRICT, WITHOUT ROWID;
CREATE INDEX pending_missing_by_event ON pending_missing (pending);

CREATE TABLE server_keys (
    server         TEXT PRIMARY KEY,
    issued_ts      INTEGER NOT NULL,
    valid_until_ts INTEGER NOT NULL,
    json           TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE peer_addresses (
    server  TEXT NOT NULL,
    address TEXT NOT NULL,
    seen_ts INTEGER NOT NULL,
    PRIMARY KEY (server, address)
) STRICT, WITHOUT ROWID;
CREATE INDEX peer_addresses_by_age ON peer_addresses (seen_ts);

CREATE TABLE txn_ids (
    user       INTEGER NOT NULL,
    device     TEXT NOT NULL,
    scope      TEXT NOT NULL,
    txn_id     TEXT NOT NULL,
    event      INTEGER NOT NULL,
    created_ts INTEGER NOT NULL,
    PRIMARY KEY (user, device, txn_id, scope)
) STRICT, WITHOUT ROWID;
