"""Blocks as answers: for each provider API, an answer whose text is the message."""
