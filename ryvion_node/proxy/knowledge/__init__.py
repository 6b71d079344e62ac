"""Knowledge bases at the endpoint: kept, searched, and used in answers."""
