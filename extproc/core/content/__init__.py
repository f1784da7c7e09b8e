"""Bytes, event streams and JSON, read and rewritten without losing a byte that nothing changed."""
