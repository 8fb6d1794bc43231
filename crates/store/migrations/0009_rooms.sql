-- The servers through which knocks of our users went: the way to take one back.
CREATE TABLE knocks (
    room_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    server  TEXT NOT NULL,
    PRIMARY KEY (room_id, user_id)
) STRICT, WITHOUT ROWID;

-- The rooms in this server's public list.
CREATE TABLE published_rooms (
    room INTEGER PRIMARY KEY
) STRICT;

-- Which event of a room was sent at about a time. History has a position and maybe no state.
CREATE INDEX events_by_time ON events (room, json_extract(json, '$.origin_server_ts'))
    WHERE pos IS NOT NULL;
