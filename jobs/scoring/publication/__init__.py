"""From staging to the table: a run's slices, what of them is staged, and one commit for each."""
