"""Bodies, event streams and JSON: read and rewritten so that unchanged bytes stay unchanged."""
