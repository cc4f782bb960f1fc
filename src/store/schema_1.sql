-- How the last run of the store began and ended; one row.
CREATE TABLE run (
  id          INTEGER PRIMARY KEY CHECK (id = 1),
  boot_id     TEXT,
  clean       INTEGER NOT NULL,
  synchronous TEXT NOT NULL
) STRICT;

-- Channels. `top` is the offset of the newest message, `oldest` that of the oldest one still stored
-- (`top + 1` where none is).
CREATE TABLE channel (
  id         INTEGER PRIMARY KEY,
  name       TEXT NOT NULL UNIQUE,
  epoch      TEXT NOT NULL,
  top        INTEGER NOT NULL,
  oldest     INTEGER NOT NULL,
  touched_at INTEGER NOT NULL
) STRICT;

-- The messages of channels with history. `body` is the envelope without its end (model::message::OpenEnvelope).
CREATE TABLE message (
  channel        INTEGER NOT NULL,
  offset         INTEGER NOT NULL,
  id             TEXT NOT NULL,
  event          TEXT NOT NULL,
  priority       INTEGER NOT NULL,
  timestamp      INTEGER NOT NULL,
  conflation_key TEXT,
  body           TEXT NOT NULL,
  PRIMARY KEY (channel, offset)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX message_id ON message (channel, id);

-- Tests: the fold of their messages, as JSON.
CREATE TABLE test (
  seq        INTEGER PRIMARY KEY AUTOINCREMENT,
  id         TEXT NOT NULL UNIQUE,
  state      TEXT NOT NULL,
  updated_at INTEGER NOT NULL,
  snapshot   TEXT NOT NULL
) STRICT;
CREATE INDEX test_state ON test (state, seq);

-- Jobs. `seq` orders jobs of one priority; `fence` rises with every claim and guards every write of an
-- attempt; `event_seq` numbers the job's changes; attempts up to `attempt_base` do not count
-- against `max_attempts` any more.
CREATE TABLE job (
  seq              INTEGER PRIMARY KEY AUTOINCREMENT,
  id               TEXT NOT NULL UNIQUE,
  test_id          TEXT NOT NULL,
  test_type        TEXT NOT NULL,
  config           TEXT NOT NULL,
  state            TEXT NOT NULL,
  priority         INTEGER NOT NULL,
  attempt          INTEGER NOT NULL,
  max_attempts     INTEGER NOT NULL,
  attempt_base     INTEGER NOT NULL,
  timeout_ms       INTEGER,
  dedupe_key       TEXT,
  team_id          TEXT,
  user_id          TEXT,
  created_at       INTEGER NOT NULL,
  run_at           INTEGER,
  started_at       INTEGER,
  ended_at         INTEGER,
  worker_id        TEXT,
  fence            INTEGER NOT NULL,
  lease_until      INTEGER,
  event_seq        INTEGER NOT NULL,
  cancel_requested INTEGER NOT NULL,
  cancel_reason    TEXT,
  cancelled_by     TEXT,
  error            TEXT
) STRICT;
CREATE UNIQUE INDEX job_dedupe ON job (dedupe_key) WHERE dedupe_key IS NOT NULL;
CREATE INDEX job_ready ON job (priority DESC, seq) WHERE state = 'queued';
CREATE INDEX job_due ON job (run_at) WHERE state IN ('scheduled', 'retrying');
CREATE INDEX job_lease ON job (lease_until) WHERE state = 'running';
CREATE INDEX job_ended ON job (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX job_test ON job (test_id);
CREATE INDEX job_state ON job (state, seq);

-- How many jobs are in each state, kept by the triggers, so that asking costs nothing.
CREATE TABLE job_count (
  state TEXT PRIMARY KEY,
  n     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO job_count (state, n) VALUES
  ('scheduled', 0), ('queued', 0), ('running', 0), ('retrying', 0), ('completed', 0), ('failed', 0), ('cancelled', 0);
CREATE TRIGGER job_count_insert AFTER INSERT ON job BEGIN
  UPDATE job_count SET n = n + 1 WHERE state = NEW.state;
END;
CREATE TRIGGER job_count_delete AFTER DELETE ON job BEGIN
  UPDATE job_count SET n = n - 1 WHERE state = OLD.state;
END;
CREATE TRIGGER job_count_update AFTER UPDATE OF state ON job WHEN OLD.state <> NEW.state BEGIN
  UPDATE job_count SET n = n - 1 WHERE state = OLD.state;
  UPDATE job_count SET n = n + 1 WHERE state = NEW.state;
END;
