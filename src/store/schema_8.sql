-- Who is shut out although their token would be taken: users (kind 0), and tokens by their id (kind 1) until they have
-- expired.
CREATE TABLE revocation (
  kind     INTEGER NOT NULL,
  name     TEXT NOT NULL,
  until_ms INTEGER,
  PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX revocation_until ON revocation (until_ms) WHERE until_ms IS NOT NULL;
