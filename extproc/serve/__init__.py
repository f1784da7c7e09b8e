"""One serving process, or several under a supervisor: start, reload and drain."""
