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
