-- Messages are stored as packs (store::pack): what was appended together is one row. `seq` is the number of its first
-- message, `last` that of its last one; `time` is that of the server's own ids in it (store::pack::time_of).
CREATE TABLE pack (
  seq       INTEGER PRIMARY KEY,
  last      INTEGER NOT NULL,
  time      INTEGER,
  messages  INTEGER NOT NULL,
  directory BLOB NOT NULL,
  bodies    BLOB NOT NULL
) STRICT;
CREATE INDEX pack_time ON pack (time) WHERE time IS NOT NULL;

-- How much of a pack is of no use any more, for those of which something is.
CREATE TABLE pack_waste (
  pack     INTEGER PRIMARY KEY,
  messages INTEGER NOT NULL,
  wasted   INTEGER NOT NULL,
  bytes    INTEGER NOT NULL
) STRICT;
CREATE INDEX pack_waste_half ON pack_waste (pack) WHERE wasted * 2 >= bytes;

-- Message ids that the server did not make.
CREATE TABLE given_id (
  id      TEXT NOT NULL,
  channel INTEGER NOT NULL,
  offset  INTEGER NOT NULL,
  PRIMARY KEY (id, channel)
) STRICT, WITHOUT ROWID;

-- Where the messages of each channel stand, for all messages up to the mark (`place_mark`): runs of `n` messages from
-- offset `first` on (store::run). Those after the mark are in memory (store::places) until they are merged; until
-- then the row of their channel does not know of them either.
CREATE TABLE place_run (
  channel INTEGER NOT NULL,
  first   INTEGER NOT NULL,
  n       INTEGER NOT NULL,
  places  BLOB NOT NULL,
  PRIMARY KEY (channel, first)
) STRICT, WITHOUT ROWID;

-- A channel's number is never given again: packs may still hold what a forgotten one had.
CREATE TABLE channel_6 (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  name       TEXT NOT NULL UNIQUE,
  epoch      TEXT NOT NULL,
  top        INTEGER NOT NULL,
  oldest     INTEGER NOT NULL,
  touched_at INTEGER NOT NULL
) STRICT;
INSERT INTO channel_6 (id, name, epoch, top, oldest, touched_at)
  SELECT id, name, epoch, top, oldest, touched_at FROM channel;
DROP TABLE channel;
ALTER TABLE channel_6 RENAME TO channel;
