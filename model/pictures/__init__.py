"""Reading photos of all formats: what is no photo, what is metadata, what samples mean."""
