-- Messages stand in the order in which they were stored: what is appended together lies together, at the end of the
-- table, however many channels it is for. Their places and ids are small and apart. `message_place` holds the
-- conflation key too, so that a replay can be counted without reading the messages. `message_id` begins with the id:
-- those that the server makes rise with time, so that they, too, are added at one end.
CREATE TABLE message_4 (
  seq            INTEGER PRIMARY KEY,
  channel        INTEGER NOT NULL,
  offset         INTEGER NOT NULL,
  id             TEXT NOT NULL,
  event          TEXT NOT NULL,
  priority       INTEGER NOT NULL,
  timestamp      INTEGER NOT NULL,
  conflation_key TEXT,
  body           TEXT NOT NULL
) STRICT;
INSERT INTO message_4 (channel, offset, id, event, priority, timestamp, conflation_key, body)
  SELECT channel, offset, id, event, priority, timestamp, conflation_key, body FROM message ORDER BY timestamp, channel, offset;
DROP TABLE message;
ALTER TABLE message_4 RENAME TO message;
CREATE INDEX message_place ON message (channel, offset, conflation_key);
CREATE UNIQUE INDEX message_id ON message (id, channel);
