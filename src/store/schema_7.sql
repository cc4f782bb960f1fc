-- The trace that a job belongs to, as W3C writes it.
ALTER TABLE job ADD COLUMN traceparent TEXT;
