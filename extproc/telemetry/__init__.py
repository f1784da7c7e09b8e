"""What operators see of the traffic: metrics, logs, the audit log and traces. None of them has content."""
