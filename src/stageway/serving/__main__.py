"""``python -S -s -P -m stageway.serving``: add the layers to the import path, then serve."""

import sys

from stageway.serving.layers import add_layers

if __name__ == "__main__":
    add_layers()
    from stageway.serving.main import main

    sys.exit(main())
