"""The command line of `extproc`: one module for each group of commands."""
