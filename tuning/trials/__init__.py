"""Trials: what one trains, how it is judged, how it is recorded."""
