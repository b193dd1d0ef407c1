"""Training of attention and flow on flawless photos."""
