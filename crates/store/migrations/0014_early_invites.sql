-- Invites of local users that came while, as far as this node knows, the user was still in the room:
-- the departure before them is on its way. One for each user in each room.
CREATE TABLE early_invites (
    room     INTEGER NOT NULL,
    user     INTEGER NOT NULL,
    event    INTEGER NOT NULL,
    stripped TEXT NOT NULL,
    PRIMARY KEY (room, user)
) STRICT, WITHOUT ROWID;
