-- A store of schema 5 as a server left it that was ended: 18 messages of three channels, half of whose places are
-- merged; ids of the server, of senders and of mirrors.
CREATE TABLE channel (
  id         INTEGER PRIMARY KEY,
  name       TEXT NOT NULL UNIQUE,
  epoch      TEXT NOT NULL,
  top        INTEGER NOT NULL,
  oldest     INTEGER NOT NULL,
  touched_at INTEGER NOT NULL
) STRICT;
INSERT INTO "channel" VALUES(1,'user-presence','nkw2a8gzz7eh',0,1,1795877290208);
INSERT INTO "channel" VALUES(2,'test-progress-a','myb2z5x7pmg4',6,1,1795877290614);
INSERT INTO "channel" VALUES(3,'test-progress-b','a7szj4mffxr6',6,1,1795877290613);
INSERT INTO "channel" VALUES(4,'test-updates','3edm6hhrecxb',6,1,1795877290613);
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
CREATE TABLE inbox_count (
  user   TEXT PRIMARY KEY,
  n      INTEGER NOT NULL,
  unread INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE inbox_total (
  id     INTEGER PRIMARY KEY CHECK (id = 1),
  unread INTEGER NOT NULL
) STRICT;
INSERT INTO "inbox_total" VALUES(1,0);
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
CREATE TABLE job_count (
  state TEXT PRIMARY KEY,
  n     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "job_count" VALUES('cancelled',0);
INSERT INTO "job_count" VALUES('completed',0);
INSERT INTO "job_count" VALUES('failed',0);
INSERT INTO "job_count" VALUES('queued',0);
INSERT INTO "job_count" VALUES('retrying',0);
INSERT INTO "job_count" VALUES('running',0);
INSERT INTO "job_count" VALUES('scheduled',0);
CREATE TABLE "message" (
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
INSERT INTO "message" VALUES(1,2,1,'msg_01M8HA1GKMYD22PXCJVB4V0EWF','custom:x',2,1795877290612,NULL,'{"id":"msg_01M8HA1GKMYD22PXCJVB4V0EWF","event":"custom:x","channel":"test-progress-a","priority":2,"timestamp":1795877290612,"userId":"ann","data":{"n": 0, "text": "\u00fcn\u00ef"}');
INSERT INTO "message" VALUES(2,2,2,'msg_01M8HA1GKM30YBWN3D2JYVGZCR','custom:x',2,1795877290612,NULL,'{"id":"msg_01M8HA1GKM30YBWN3D2JYVGZCR","event":"custom:x","channel":"test-progress-a","priority":2,"timestamp":1795877290612,"userId":"ann","data":{"n": 1, "text": "\u00fcn\u00ef"}');
INSERT INTO "message" VALUES(3,2,3,'msg_01M8HA1GKM66QH5DJ469WVTPXK','custom:x',2,1795877290612,NULL,'{"id":"msg_01M8HA1GKM66QH5DJ469WVTPXK","event":"custom:x","channel":"test-progress-a","priority":2,"timestamp":1795877290612,"userId":"ann","data":{"n": 2, "text": "\u00fcn\u00ef"}');
INSERT INTO "message" VALUES(4,2,4,'msg_01M8HA1GKM8FTHCG51STKKG5C2','custom:x',2,1795877290612,NULL,'{"id":"msg_01M8HA1GKM8FTHCG51STKKG5C2","event":"custom:x","channel":"test-progress-a","priority":2,"timestamp":1795877290612,"userId":"ann","data":{"n": 3, "text": "\u00fcn\u00ef"}');
INSERT INTO "message" VALUES(5,2,5,'msg_01M8HA1GKMZG91V7RP3A50EXRP','custom:x',2,1795877290612,NULL,'{"id":"msg_01M8HA1GKMZG91V7RP3A50EXRP","event":"custom:x","channel":"test-progress-a","priority":2,"timestamp":1795877290612,"userId":"ann","data":{"n": 4, "text": "\u00fcn\u00ef"}');
INSERT INTO "message" VALUES(6,3,1,'given-0','test:progress',2,1795877290613,'test:progress','{"id":"given-0","event":"test:progress","channel":"test-progress-b","priority":2,"timestamp":1795877290613,"userId":"ann","data":{"testId": "b", "attempt": 1, "progress": 0}');
INSERT INTO "message" VALUES(7,4,1,'b:given-0','test:progress',2,1795877290613,'test:progress','{"id":"b:given-0","event":"test:progress","channel":"test-updates","priority":2,"timestamp":1795877290613,"userId":"ann","data":{"testId": "b", "attempt": 1, "progress": 0}');
INSERT INTO "message" VALUES(8,3,2,'given-1','test:progress',2,1795877290613,'test:progress','{"id":"given-1","event":"test:progress","channel":"test-progress-b","priority":2,"timestamp":1795877290613,"userId":"ann","data":{"testId": "b", "attempt": 1, "progress": 10}');
INSERT INTO "message" VALUES(9,4,2,'b:given-1','test:progress',2,1795877290613,'test:progress','{"id":"b:given-1","event":"test:progress","channel":"test-updates","priority":2,"timestamp":1795877290613,"userId":"ann","data":{"testId": "b", "attempt": 1, "progress": 10}');
INSERT INTO "message" VALUES(10,3,3,'given-2','test:progress',2,1795877290613,'test:progress','{"id":"given-2","event":"test:progress","channel":"test-progress-b","priority":2,"timestamp":1795877290613,"userId":"ann","data":{"testId": "b", "attempt": 1, "progress": 20}');
INSERT INTO "message" VALUES(11,4,3,'b:given-2','test:progress',2,1795877290613,'test:progress','{"id":"b:given-2","event":"test:progress","channel":"test-updates","priority":2,"timestamp":1795877290613,"userId":"ann","data":{"testId": "b", "attempt": 1, "progress": 20}');
INSERT INTO "message" VALUES(12,3,4,'given-3','test:progress',2,1795877290613,'test:progress','{"id":"given-3","event":"test:progress","channel":"test-progress-b","priority":2,"timestamp":1795877290613,"userId":"ann","data":{"testId": "b", "attempt": 1, "progress": 30}');
INSERT INTO "message" VALUES(13,4,4,'b:given-3','test:progress',2,1795877290613,'test:progress','{"id":"b:given-3","event":"test:progress","channel":"test-updates","priority":2,"timestamp":1795877290613,"userId":"ann","data":{"testId": "b", "attempt": 1, "progress": 30}');
INSERT INTO "message" VALUES(14,3,5,'given-4','test:progress',2,1795877290613,'test:progress','{"id":"given-4","event":"test:progress","channel":"test-progress-b","priority":2,"timestamp":1795877290613,"userId":"ann","data":{"testId": "b", "attempt": 1, "progress": 40}');
INSERT INTO "message" VALUES(15,4,5,'b:given-4','test:progress',2,1795877290613,'test:progress','{"id":"b:given-4","event":"test:progress","channel":"test-updates","priority":2,"timestamp":1795877290613,"userId":"ann","data":{"testId": "b", "attempt": 1, "progress": 40}');
INSERT INTO "message" VALUES(16,3,6,'given-5','test:progress',2,1795877290613,'test:progress','{"id":"given-5","event":"test:progress","channel":"test-progress-b","priority":2,"timestamp":1795877290613,"userId":"ann","data":{"testId": "b", "attempt": 1, "progress": 50}');
INSERT INTO "message" VALUES(17,4,6,'b:given-5','test:progress',2,1795877290613,'test:progress','{"id":"b:given-5","event":"test:progress","channel":"test-updates","priority":2,"timestamp":1795877290613,"userId":"ann","data":{"testId": "b", "attempt": 1, "progress": 50}');
INSERT INTO "message" VALUES(18,2,6,'msg_01M8HA1GKPRX1G2PYVY7GABCFM','custom:y',4,1795877290614,NULL,'{"id":"msg_01M8HA1GKPRX1G2PYVY7GABCFM","event":"custom:y","channel":"test-progress-a","priority":4,"timestamp":1795877290614,"userId":"ann","data":null,"trace":"t-1"');
CREATE TABLE place (
  channel        INTEGER NOT NULL,
  offset         INTEGER NOT NULL,
  seq            INTEGER NOT NULL,
  conflation_key TEXT,
  PRIMARY KEY (channel, offset)
) STRICT, WITHOUT ROWID;
INSERT INTO "place" VALUES(2,1,1,NULL);
INSERT INTO "place" VALUES(2,2,2,NULL);
INSERT INTO "place" VALUES(2,3,3,NULL);
INSERT INTO "place" VALUES(2,4,4,NULL);
INSERT INTO "place" VALUES(2,5,5,NULL);
INSERT INTO "place" VALUES(3,1,6,'test:progress');
INSERT INTO "place" VALUES(3,2,8,'test:progress');
INSERT INTO "place" VALUES(4,1,7,'test:progress');
INSERT INTO "place" VALUES(4,2,9,'test:progress');
CREATE TABLE place_mark (
  id  INTEGER PRIMARY KEY CHECK (id = 1),
  seq INTEGER NOT NULL
) STRICT;
INSERT INTO "place_mark" VALUES(1,9);
CREATE TABLE run (
  id          INTEGER PRIMARY KEY CHECK (id = 1),
  boot_id     TEXT,
  clean       INTEGER NOT NULL,
  synchronous TEXT NOT NULL
) STRICT;
INSERT INTO "run" VALUES(1,NULL,1,'NORMAL');
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
CREATE TABLE test (
  seq        INTEGER PRIMARY KEY AUTOINCREMENT,
  id         TEXT NOT NULL UNIQUE,
  state      TEXT NOT NULL,
  updated_at INTEGER NOT NULL,
  snapshot   TEXT NOT NULL
) STRICT;
INSERT INTO "test" VALUES(1,'b','running',1795877290613,'{"testId":"b","testType":"external","state":"running","attempt":1,"progress":50.0,"counts":{"passed":0,"failed":0,"skipped":0},"current":[],"metrics":{},"failures":[],"startedAt":1795877290613,"epoch":"a7szj4mffxr6","offset":0}');
CREATE INDEX test_state ON test (state, seq);
CREATE UNIQUE INDEX job_dedupe ON job (dedupe_key) WHERE dedupe_key IS NOT NULL;
CREATE INDEX job_ready ON job (priority DESC, seq) WHERE state = 'queued';
CREATE INDEX job_due ON job (run_at) WHERE state IN ('scheduled', 'retrying');
CREATE INDEX job_lease ON job (lease_until) WHERE state = 'running';
CREATE INDEX job_ended ON job (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX job_test ON job (test_id);
CREATE INDEX job_state ON job (state, seq);
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
CREATE UNIQUE INDEX inbox_message ON inbox (channel, id);
CREATE INDEX inbox_id ON inbox (id);
CREATE INDEX inbox_user ON inbox (user, seq);
CREATE INDEX inbox_position ON inbox (user, epoch, offset);
CREATE INDEX inbox_unread ON inbox (user, seq) WHERE status = 'unread';
CREATE INDEX inbox_offline ON inbox (user, seq) WHERE takers <= 0 AND confirmed = 0;
CREATE INDEX inbox_age ON inbox (timestamp);
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
CREATE INDEX sync_state_saved ON sync_state (saved_at);
CREATE UNIQUE INDEX message_id ON message (id, channel);
PRAGMA application_id = 1952738919;
PRAGMA user_version = 5;
