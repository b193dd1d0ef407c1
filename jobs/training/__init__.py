"""Training of one detector or a fleet of them with Ray Train."""
