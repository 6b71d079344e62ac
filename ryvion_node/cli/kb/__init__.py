"""`ryvion-node kb`: knowledge bases of the node that runs here."""
