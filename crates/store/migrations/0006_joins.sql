-- Joins through another server that were asked for and not answered yet. If the answer was lost,
-- the other server believes that we are in the room.
CREATE TABLE joins_under_way (
    room_id    TEXT    NOT NULL,
    user_id    TEXT    NOT NULL,
    server     TEXT    NOT NULL,
    -- The content of the member event, to go on with.
    content    TEXT    NOT NULL,
    started_ts INTEGER NOT NULL,
    PRIMARY KEY (room_id, user_id, server)
) STRICT, WITHOUT ROWID;
