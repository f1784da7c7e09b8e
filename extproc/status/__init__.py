"""The status page: what a person has to know of a running sidecar, on one page, without content and secrets."""
