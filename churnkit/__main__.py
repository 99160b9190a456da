"""`python -m churnkit` is the command `churnkit`."""

from churnkit.cli import main

if __name__ == "__main__":
    main()
