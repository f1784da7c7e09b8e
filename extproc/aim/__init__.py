"""Aim: its wire (`protocol`), and talking to it (`client`, `session`)."""
