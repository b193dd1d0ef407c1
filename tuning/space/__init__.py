"""What a search varies, and the presets that it begins with."""
