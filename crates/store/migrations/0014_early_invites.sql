-- Invites of local users to rooms that this node is in as far as it knows: the departure before them
-- may be on its way. One of each server for each user in each room.
CREATE TABLE early_invites (
    room     INTEGER NOT NULL,
    user     INTEGER NOT NULL,
    server   INTEGER NOT NULL,
    json     TEXT NOT NULL,
    stripped TEXT NOT NULL,
    PRIMARY KEY (room, user, server)
) STRICT, WITHOUT ROWID;
CREATE INDEX early_invites_by_user ON early_invites (user);
