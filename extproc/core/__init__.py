"""The core: decides what happens to an exchange. It does no I/O and reads no clock."""
