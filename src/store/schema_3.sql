-- Up to where each device knows each channel. `user_id` is empty for devices of nobody in particular. What was acknowledged and
-- what was written are two rows.
CREATE TABLE sync_state (
  user_id      TEXT NOT NULL,
  client_id    TEXT NOT NULL,
  channel      TEXT NOT NULL,
  acknowledged INTEGER NOT NULL,
  epoch        TEXT NOT NULL,
  offset       INTEGER NOT NULL,
  saved_at     INTEGER NOT NULL,
  PRIMARY KEY (user_id, client_id, channel, acknowledged)
) STRICT;
CREATE INDEX sync_state_saved ON sync_state (saved_at);
