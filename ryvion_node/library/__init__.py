"""The models at hand: what came with the node, what its owner fetched or added, and how new ones are fetched."""
