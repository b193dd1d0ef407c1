"""Where in a photo the deviation lies: maps, their peak, and the region around it."""
