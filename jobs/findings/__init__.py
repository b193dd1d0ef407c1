"""What a run found, for people: a page to look through, and verdicts that come back from it."""
