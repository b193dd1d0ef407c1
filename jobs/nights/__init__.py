"""Nights: a scoring run submitted to a running Ray cluster, waited for, and continued when it was cut off."""
