"""A batch in, results out: encoding rows, the executor seam, and what to do when a row is bad."""
