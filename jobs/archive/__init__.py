"""Archives of photos: what kind one is, how it is listed, in which order its photos come."""
