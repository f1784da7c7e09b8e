"""The admin port: health, readiness, metrics, and the status page."""
