"""The main job: an archive into rows of the result table."""
