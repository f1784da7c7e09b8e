"""`extproc report`: what the sidecar did, or in a dry run would have done, from the lines of its audit log."""
