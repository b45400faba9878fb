"""`python -m polyface.cli`."""

from polyface.cli import main

if __name__ == "__main__":
    main()
