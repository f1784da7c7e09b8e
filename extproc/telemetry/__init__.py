"""What operators see of the traffic: metrics, logs, the audit log and traces, never content."""
