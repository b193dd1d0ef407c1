"""Registered detectors: where they are kept, which one is the champion, where each comes from."""
