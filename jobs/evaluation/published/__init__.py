"""Figures that papers have published, to stand beside measured ones."""
