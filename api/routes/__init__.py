"""One file per resource; a route parses, makes one call, presents."""
