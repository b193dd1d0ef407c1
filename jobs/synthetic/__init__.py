"""Drawn photos of power lines, with defects, for the demo and the tests."""
