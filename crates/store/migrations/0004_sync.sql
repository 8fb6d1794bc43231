-- What clients of a room learn beside its events: who has read how far, and who is typing.
-- Every change has a position, like everything that shows in a sync.

CREATE TABLE receipts (
    room_nid INTEGER NOT NULL,
    user_id  TEXT NOT NULL,
    kind     TEXT NOT NULL CHECK (kind IN ('m.read', 'm.read.private')),
    thread   TEXT NOT NULL,                   -- '' for none, 'main', or the id of a thread's root
    event_id TEXT NOT NULL,                   -- may name an event that has not arrived yet
    ts       INTEGER NOT NULL,
    pos      INTEGER NOT NULL,
    PRIMARY KEY (room_nid, user_id, kind, thread)
) STRICT, WITHOUT ROWID;
CREATE INDEX receipts_of_room ON receipts (room_nid, pos);
CREATE INDEX receipts_by_pos ON receipts (pos);

CREATE TABLE typing (
    room_nid   INTEGER NOT NULL,
    user_id    TEXT NOT NULL,
    expires_ts INTEGER NOT NULL,
    PRIMARY KEY (room_nid, user_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX typing_by_expiry ON typing (expires_ts);

-- When the set of typing users of a room last changed.
CREATE TABLE typing_rooms (
    room_nid INTEGER NOT NULL PRIMARY KEY,
    pos      INTEGER NOT NULL
) STRICT;
CREATE INDEX typing_rooms_by_pos ON typing_rooms (pos);
