-- What users have beside rooms: the keys of their devices, messages from device to device,
-- presence, further profile fields, and tokens that prove to others who somebody is.

-- A deactivated account keeps its name, so that nobody else gets it.
ALTER TABLE users ADD COLUMN deactivated_ts INTEGER;

-- When the number of one-time keys or the use of a fallback key last changed by a claim.
ALTER TABLE devices ADD COLUMN keys_pos INTEGER NOT NULL DEFAULT 0;

-- Of local users, and of those users of other servers whose lists we follow.
CREATE TABLE device_keys (
    user_id   TEXT NOT NULL,
    device_id TEXT NOT NULL,
    keys      TEXT,                           -- JSON as it came; NULL: a device without keys
    PRIMARY KEY (user_id, device_id)
) STRICT, WITHOUT ROWID;

-- The id is the order of upload. A key that was handed out leaves its row for a while, without
-- the key, so that it is not taken for a new one when it is uploaded again.
CREATE TABLE one_time_keys (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id   TEXT NOT NULL,
    device_id TEXT NOT NULL,
    algorithm TEXT NOT NULL,
    key_id    TEXT NOT NULL,
    key       TEXT,
    UNIQUE (user_id, device_id, algorithm, key_id)
) STRICT;
CREATE INDEX one_time_keys_left ON one_time_keys (user_id, device_id, algorithm, id)
    WHERE key IS NOT NULL;

CREATE TABLE fallback_keys (
    user_id   TEXT NOT NULL,
    device_id TEXT NOT NULL,
    algorithm TEXT NOT NULL,
    key_id    TEXT NOT NULL,
    key       TEXT NOT NULL,
    used      INTEGER NOT NULL,
    PRIMARY KEY (user_id, device_id, algorithm)
) STRICT, WITHOUT ROWID;

CREATE TABLE cross_signing_keys (
    user_id    TEXT NOT NULL,
    usage      TEXT NOT NULL CHECK (usage IN ('master', 'self_signing', 'user_signing')),
    public_key TEXT NOT NULL,
    json       TEXT NOT NULL,
    PRIMARY KEY (user_id, usage)
) STRICT, WITHOUT ROWID;

-- What local users signed: their own devices and master key, and the master keys of others.
-- The target is a device id or the public part of a cross-signing key.
CREATE TABLE key_signatures (
    target_user TEXT NOT NULL,
    target_key  TEXT NOT NULL,
    signer_user TEXT NOT NULL,
    signer_key  TEXT NOT NULL,
    signature   TEXT NOT NULL,
    pos         INTEGER NOT NULL,
    PRIMARY KEY (target_user, target_key, signer_user, signer_key)
) STRICT, WITHOUT ROWID;
CREATE INDEX key_signatures_by_signer ON key_signatures (signer_user, pos);

-- standing: 0 nothing is kept of it, 1 to be fetched anew, 2 up to date.
-- stream_id: of a local user the last one given out, else the one that was applied last.
-- seen_id: the newest one heard of.
CREATE TABLE device_lists (
    user_id     TEXT NOT NULL PRIMARY KEY,
    standing    INTEGER NOT NULL,
    stream_id   INTEGER NOT NULL,
    seen_id     INTEGER NOT NULL,
    changed_pos INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX device_lists_by_pos ON device_lists (changed_pos);
CREATE INDEX device_lists_stale ON device_lists (user_id) WHERE standing = 1;

-- What waits for a device, in the order in which it came. A row goes when a later sync shows
-- that its client has it.
CREATE TABLE to_device (
    user_id   TEXT NOT NULL,
    device_id TEXT NOT NULL,
    pos       INTEGER NOT NULL,
    origin    TEXT NOT NULL,
    sender    TEXT NOT NULL,
    kind      TEXT NOT NULL,
    content   TEXT NOT NULL,
    PRIMARY KEY (user_id, device_id, pos)
) STRICT, WITHOUT ROWID;
CREATE INDEX to_device_by_origin ON to_device (user_id, device_id, origin);

-- Messages that were taken: of another server by its name, of a local device by what it is.
CREATE TABLE to_device_seen (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    scope      TEXT NOT NULL,
    message_id TEXT NOT NULL,
    UNIQUE (scope, message_id)
) STRICT;

-- state: 0 offline, 1 unavailable, 2 online.
CREATE TABLE presence (
    user_id          TEXT NOT NULL PRIMARY KEY,
    state            INTEGER NOT NULL,
    status_msg       TEXT,
    last_active_ts   INTEGER NOT NULL,
    currently_active INTEGER NOT NULL,
    pos              INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX presence_by_pos ON presence (pos);

CREATE TABLE openid_tokens (
    hash       BLOB NOT NULL PRIMARY KEY,     -- SHA-256 of the token
    user_id    TEXT NOT NULL,
    expires_ts INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX openid_tokens_of_user ON openid_tokens (user_id, expires_ts);

-- Fields beside the display name and the avatar.
CREATE TABLE profile_fields (
    user_id TEXT NOT NULL,
    field   TEXT NOT NULL,
    value   TEXT NOT NULL,                    -- JSON
    PRIMARY KEY (user_id, field)
) STRICT, WITHOUT ROWID;
