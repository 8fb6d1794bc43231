-- What must arrive at another server and is no event of a shared room (D12).
CREATE TABLE outbox (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    destination TEXT    NOT NULL,
    kind        INTEGER NOT NULL,
    -- An entry that was never sent yet is replaced by a later one of the same slot.
    slot        TEXT,
    body        TEXT    NOT NULL,
    created_ts  INTEGER NOT NULL,
    -- The transaction it was first sent in; it is repeated in no other.
    batch       INTEGER
) STRICT;
CREATE INDEX outbox_order ON outbox (destination, id);
CREATE UNIQUE INDEX outbox_slot ON outbox (destination, slot) WHERE batch IS NULL AND slot IS NOT NULL;

-- Transactions of other servers that were applied, so that a repeated one is not applied again.
CREATE TABLE received_transactions (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    origin TEXT NOT NULL,
    txn_id TEXT NOT NULL,
    UNIQUE (origin, txn_id)
) STRICT;
