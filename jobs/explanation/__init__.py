"""Pictures and maps of where in a photo its score comes from: for any photo, and for the worst of a run."""
