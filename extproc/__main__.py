"""`python -m extproc`: the same as the `extproc` command."""

from extproc.cli.main import main

main()
