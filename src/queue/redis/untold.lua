-- Reads a job with what is untold of it. ARGV: publish, job. Nothing of one that cannot be read.
return look(ARGV[2], whole)
