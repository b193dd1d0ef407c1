"""What a search varies, and the points that it begins with."""
