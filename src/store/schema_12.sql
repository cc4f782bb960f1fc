-- Which ticks of schedules were fired.
CREATE TABLE fired (
  schedule TEXT NOT NULL,
  tick     INTEGER NOT NULL,
  PRIMARY KEY (schedule, tick)
) STRICT, WITHOUT ROWID;
