-- Where a job waits: with those that are held back together (Job::lane).
ALTER TABLE job ADD COLUMN lane TEXT NOT NULL DEFAULT '';
UPDATE job SET lane = test_type;
UPDATE job SET lane = 'command/' || json_extract(config, '$.suite')
  WHERE test_type = 'command' AND lease_ms IS NULL
    AND json_type(config, '$.suite') = 'text' AND length(CAST(json_extract(config, '$.suite') AS BLOB)) BETWEEN 1 AND 256;
DROP INDEX job_ready;
CREATE INDEX job_ready ON job (lane, priority DESC, seq) WHERE state = 'queued';
CREATE INDEX job_lane_running ON job (lane) WHERE state = 'running';

-- What is held back: `*`, a test type, or the lane of a suite (Scope::key).
CREATE TABLE pause (
  scope  TEXT PRIMARY KEY,
  since  INTEGER NOT NULL,
  by     TEXT,
  reason TEXT
) STRICT, WITHOUT ROWID;
