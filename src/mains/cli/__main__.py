"""`python -m mains.cli`: the command `mains`."""

from mains.cli import main

if __name__ == "__main__":
    main()
