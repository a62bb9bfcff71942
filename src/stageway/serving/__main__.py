"""``python -S -s -P -m stageway.serving``: add the layers to the import path, then serve."""

import sys

from stageway.serving.terminal import Terminal

if __name__ == "__main__":
    # Before all else: by default SIGHUP, which asks for a reload, ends a process.
    terminal = Terminal()
    terminal.remember()
    from stageway.serving.layers import add_layers

    add_layers()
    from stageway.serving.main import main

    sys.exit(main(terminal=terminal))
