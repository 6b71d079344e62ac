"""`python -m ryvion_node` is `ryvion-node`."""

from __future__ import annotations

from ryvion_node.cli import main

if __name__ == "__main__":
    main()
