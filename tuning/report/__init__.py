"""What a search has found: tables, pictures, a page."""
