"""``python -m stageway`` is the ``stageway`` command."""

from stageway.cli.main import main

if __name__ == "__main__":
    main()
