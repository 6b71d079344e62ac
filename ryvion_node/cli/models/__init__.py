"""`ryvion-node models`: which models are known and here, fetching and adding them, and whether their files are right."""
