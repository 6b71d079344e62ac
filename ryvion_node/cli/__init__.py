"""The `ryvion-node` command."""
