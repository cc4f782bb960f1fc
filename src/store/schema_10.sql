-- The latest runs of what has a past, one a line, oldest first (model::past::Run).
CREATE TABLE past (
  series     TEXT PRIMARY KEY,
  updated_at INTEGER NOT NULL,
  runs       TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX past_age ON past (updated_at);
