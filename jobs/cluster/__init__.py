"""The Ray cluster: a session on it, datasets in it, and what it reports while a job runs."""
