"""The settings: their models, their sources, and the key files that they name."""
