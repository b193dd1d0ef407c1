"""What a GPU reaches of its own limits."""
