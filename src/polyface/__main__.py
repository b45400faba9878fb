"""`python -m polyface`."""

from polyface.cli import main

main()
