-- What makes media verifiable that another than their own server gives, and who may have them.

-- The description that the media's own server signed, as it came.
ALTER TABLE media ADD COLUMN description TEXT;

-- Which rooms' events name which media. The key is made of the mxc:// address; the server is that
-- of the sender; the hash is the one that the event names, if it names one.
CREATE TABLE media_references (
    mxc    INTEGER NOT NULL,
    room   INTEGER NOT NULL,
    server INTEGER NOT NULL,
    sha256 BLOB,
    PRIMARY KEY (mxc, room, server)
) STRICT, WITHOUT ROWID;
