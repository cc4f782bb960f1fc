-- What runs of a job have in common; how long its holder may be silent, and the holder's secret, where somebody outside
-- of all workers runs it.
ALTER TABLE job ADD COLUMN name TEXT;
ALTER TABLE job ADD COLUMN lease_ms INTEGER;
ALTER TABLE job ADD COLUMN secret TEXT;
