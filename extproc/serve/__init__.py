"""The serving process, or several under a supervisor: start, reload, drain."""
