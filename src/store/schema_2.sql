-- Inboxes: what users were notified of, one row per notification. `position` of the message is (epoch, offset) in
-- `channel`; `body` is its envelope without its end. `takers` counts the devices that took it as it came; 0 and
-- not `confirmed` means that it waits in `offline`. `status` is unread, read or recalled.
CREATE TABLE inbox (
  seq          INTEGER PRIMARY KEY AUTOINCREMENT,
  user         TEXT NOT NULL,
  channel      TEXT NOT NULL,
  id           TEXT NOT NULL,
  epoch        TEXT NOT NULL,
  offset       INTEGER NOT NULL,
  timestamp    INTEGER NOT NULL,
  sender       TEXT,
  body         TEXT NOT NULL,
  status       TEXT NOT NULL DEFAULT 'unread',
  takers       INTEGER NOT NULL DEFAULT 0,
  confirmed    INTEGER NOT NULL DEFAULT 0,
  delivered_at INTEGER,
  read_at      INTEGER
) STRICT;
CREATE UNIQUE INDEX inbox_message ON inbox (channel, id);
CREATE INDEX inbox_id ON inbox (id);
CREATE INDEX inbox_user ON inbox (user, seq);
CREATE INDEX inbox_position ON inbox (user, epoch, offset);
CREATE INDEX inbox_unread ON inbox (user, seq) WHERE status = 'unread';
CREATE INDEX inbox_offline ON inbox (user, seq) WHERE takers <= 0 AND confirmed = 0;
CREATE INDEX inbox_age ON inbox (timestamp);

-- How many notifications a user has, and how many of all users' are unread, kept by the triggers.
CREATE TABLE inbox_count (
  user   TEXT PRIMARY KEY,
  n      INTEGER NOT NULL,
  unread INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE inbox_total (
  id     INTEGER PRIMARY KEY CHECK (id = 1),
  unread INTEGER NOT NULL
) STRICT;
INSERT INTO inbox_total (id, unread) VALUES (1, 0);
CREATE TRIGGER inbox_insert AFTER INSERT ON inbox BEGIN
  INSERT INTO inbox_count (user, n, unread) VALUES (NEW.user, 1, NEW.status = 'unread')
    ON CONFLICT (user) DO UPDATE SET n = n + 1, unread = unread + (NEW.status = 'unread');
  UPDATE inbox_total SET unread = unread + (NEW.status = 'unread');
END;
CREATE TRIGGER inbox_delete AFTER DELETE ON inbox BEGIN
  UPDATE inbox_count SET n = n - 1, unread = unread - (OLD.status = 'unread') WHERE user = OLD.user;
  DELETE FROM inbox_count WHERE user = OLD.user AND n = 0;
  UPDATE inbox_total SET unread = unread - (OLD.status = 'unread');
END;
CREATE TRIGGER inbox_update AFTER UPDATE OF status ON inbox WHEN OLD.status <> NEW.status BEGIN
  UPDATE inbox_count SET unread = unread - (OLD.status = 'unread') + (NEW.status = 'unread') WHERE user = NEW.user;
  UPDATE inbox_total SET unread = unread - (OLD.status = 'unread') + (NEW.status = 'unread');
END;
