-- What waits for whom, counted as it changes: the outbox itself may be long.
CREATE TABLE outbox_destinations (
    destination TEXT    NOT NULL PRIMARY KEY,
    entries     INTEGER NOT NULL,
    bytes       INTEGER NOT NULL,
    -- The newest entry that there ever was.
    newest      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE outbox_totals (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    entries INTEGER NOT NULL,
    bytes   INTEGER NOT NULL,
    -- What never left the outbox, since the beginning.
    dropped_full    INTEGER NOT NULL,
    dropped_expired INTEGER NOT NULL
) STRICT;
INSERT INTO outbox_destinations
    SELECT destination, count(*), sum(length(CAST(body AS BLOB))), max(id) FROM outbox GROUP BY destination;
INSERT INTO outbox_totals
    SELECT 1, count(*), coalesce(sum(length(CAST(body AS BLOB))), 0), 0, 0 FROM outbox;

-- After this time the entry is worth nothing; NULL is never.
ALTER TABLE outbox ADD COLUMN expires_ts INTEGER;
CREATE INDEX outbox_expiry ON outbox (expires_ts) WHERE expires_ts IS NOT NULL;

CREATE TRIGGER outbox_grows AFTER INSERT ON outbox BEGIN
    INSERT INTO outbox_destinations (destination, entries, bytes, newest)
        VALUES (new.destination, 1, length(CAST(new.body AS BLOB)), new.id)
        ON CONFLICT DO UPDATE SET
            entries = entries + 1, bytes = bytes + length(CAST(new.body AS BLOB)), newest = new.id;
    UPDATE outbox_totals SET entries = entries + 1, bytes = bytes + length(CAST(new.body AS BLOB));
END;
CREATE TRIGGER outbox_shrinks AFTER DELETE ON outbox BEGIN
    UPDATE outbox_destinations SET entries = entries - 1, bytes = bytes - length(CAST(old.body AS BLOB))
        WHERE destination = old.destination;
    DELETE FROM outbox_destinations WHERE destination = old.destination AND entries = 0;
    UPDATE outbox_totals SET entries = entries - 1, bytes = bytes - length(CAST(old.body AS BLOB));
END;

-- What its destination will not take: shown to whoever asks what became of it.
CREATE TABLE outbox_refused (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    destination TEXT    NOT NULL,
    kind        INTEGER NOT NULL,
    room_id     TEXT,
    user_id     TEXT,
    reason      TEXT    NOT NULL,
    refused_ts  INTEGER NOT NULL
) STRICT;

-- Signed address records, the newest of each peer.
CREATE TABLE peer_records (
    peer_id TEXT    NOT NULL PRIMARY KEY,
    server  TEXT    NOT NULL,
    seq     INTEGER NOT NULL,
    record  BLOB    NOT NULL,
    -- Grows with each row that is written.
    change  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX peer_records_by_change ON peer_records (change);
CREATE INDEX peer_records_by_server ON peer_records (server);
