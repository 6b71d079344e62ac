"""Questions with the passages that answer them, and how well rankings find those."""
