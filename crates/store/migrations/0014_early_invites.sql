-- Invites of local users to rooms that this node is in as far as it knows: the departure before them
-- may be on its way. One for each user in each room.
CREATE TABLE early_invites (
    room     INTEGER NOT NULL,
    user     INTEGER NOT NULL,
    event    INTEGER NOT NULL,
    stripped TEXT NOT NULL,
    PRIMARY KEY (room, user)
) STRICT, WITHOUT ROWID;
