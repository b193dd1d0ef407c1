"""Buckets and clusters: verbs that run (`python -m jobs.score`) and the nouns that they share. Never imports tuning."""
