"""Knowledge bases: documents of this node's owner, cut into passages, found again by words and by meaning."""
