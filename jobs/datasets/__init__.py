"""Public data sets as they are handed out: checked against their published counts, brought into one layout."""
