"""``python -m stream.cli``: the command without its script."""

from stream.cli import main

main()
