"""The settings: what can be set, where the values come from, and the key files they name."""
