"""The Ryvion node: sells and buys inference on a peer-to-peer market."""

__version__ = "0.1.0"
