"""From an object's bytes to pixels, or to a status and a reason."""
