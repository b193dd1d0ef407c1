"""The result table: one Delta Lake table of all runs, how it is read, added to and kept in order."""
