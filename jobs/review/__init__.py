"""What people said of photos: their verdicts, and the random samples that they were given to look at."""
