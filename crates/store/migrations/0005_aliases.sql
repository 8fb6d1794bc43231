-- Names for rooms, and redactions that came before what they redact.

CREATE TABLE aliases (
    alias   TEXT PRIMARY KEY,
    room    INTEGER NOT NULL,
    creator TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX aliases_by_room ON aliases (room);

CREATE TABLE early_redactions (
    target_id TEXT NOT NULL,
    redaction INTEGER NOT NULL,
    PRIMARY KEY (target_id, redaction)
) STRICT, WITHOUT ROWID;
