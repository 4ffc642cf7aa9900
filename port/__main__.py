"""``python -m port``: the same as the ``port`` command."""

from port.cli import main

if __name__ == "__main__":
    main()
