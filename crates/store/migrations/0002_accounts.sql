-- Accounts of this node: who may log in, from where, and what they keep here.
-- Times are milliseconds since the Unix epoch. Secrets are never stored: a
-- password as its argon2id hash, a token as its SHA-256.

CREATE TABLE users (
    user_id       TEXT NOT NULL PRIMARY KEY,
    password_hash TEXT,                       -- PHC string; NULL: no login with a password
    created_ts    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE profiles (
    user_id     TEXT NOT NULL PRIMARY KEY,
    displayname TEXT,
    avatar_url  TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE devices (
    user_id      TEXT NOT NULL,
    device_id    TEXT NOT NULL,
    display_name TEXT,
    created_ts   INTEGER NOT NULL,
    last_seen_ts INTEGER NOT NULL,
    PRIMARY KEY (user_id, device_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE access_tokens (
    hash       BLOB NOT NULL PRIMARY KEY,     -- SHA-256 of the token
    user_id    TEXT NOT NULL,
    device_id  TEXT NOT NULL,
    created_ts INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX access_tokens_of_device ON access_tokens (user_id, device_id);

-- Single-use tokens. `subject` is the user for a login, and the redirect URL for a
-- consent to single sign-on.
CREATE TABLE one_time_tokens (
    hash       BLOB NOT NULL PRIMARY KEY,
    purpose    TEXT NOT NULL CHECK (purpose IN ('login', 'consent')),
    subject    TEXT NOT NULL,
    expires_ts INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX one_time_tokens_by_age ON one_time_tokens (purpose, expires_ts);

CREATE TABLE account_data (
    user_id TEXT NOT NULL,
    room_id TEXT NOT NULL,                    -- '' for data of the account as a whole
    kind    TEXT NOT NULL,
    content TEXT NOT NULL,
    pos     INTEGER NOT NULL,
    PRIMARY KEY (user_id, room_id, kind)
) STRICT, WITHOUT ROWID;
CREATE INDEX account_data_by_pos ON account_data (user_id, pos);

CREATE TABLE filters (
    user_id   TEXT NOT NULL,
    filter_id INTEGER NOT NULL,
    content   TEXT NOT NULL,
    PRIMARY KEY (user_id, filter_id)
) STRICT, WITHOUT ROWID;

-- The file of an item is named by its hash; the media id is random, so that
-- knowing a file does not tell its address, nor an address its file.
CREATE TABLE media (
    server_name  TEXT NOT NULL,
    media_id     TEXT NOT NULL,
    sha256       TEXT,                        -- NULL: the address is reserved, nothing uploaded yet
    content_type TEXT,
    filename     TEXT,
    size         INTEGER NOT NULL,
    user_id      TEXT,                        -- who uploaded it; NULL for a copy of remote media
    created_ts   INTEGER NOT NULL,
    PRIMARY KEY (server_name, media_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX media_by_hash ON media (sha256);
CREATE INDEX media_pending ON media (user_id, created_ts) WHERE sha256 IS NULL;
