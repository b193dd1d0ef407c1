"""Choices: which detectors to try, the search over them and its results."""
