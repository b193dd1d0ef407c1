"""DifferNet on its authors' own split, and what each deviation from it costs."""
