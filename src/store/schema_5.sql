-- Where the messages of each channel stand, for all messages up to the mark. The places of those after it are in
-- memory (store::places) until they are merged into this table, many at once and sorted. The conflation key is here
-- too, so that a replay can be counted without reading the messages.
CREATE TABLE place (
  channel        INTEGER NOT NULL,
  offset         INTEGER NOT NULL,
  seq            INTEGER NOT NULL,
  conflation_key TEXT,
  PRIMARY KEY (channel, offset)
) STRICT, WITHOUT ROWID;
INSERT INTO place (channel, offset, seq, conflation_key)
  SELECT channel, offset, seq, conflation_key FROM message ORDER BY channel, offset;
DROP INDEX message_place;

-- The `seq` of the last message whose place is in `place`; one row.
CREATE TABLE place_mark (
  id  INTEGER PRIMARY KEY CHECK (id = 1),
  seq INTEGER NOT NULL
) STRICT;
INSERT INTO place_mark (id, seq) SELECT 1, coalesce(max(seq), 0) FROM message;
