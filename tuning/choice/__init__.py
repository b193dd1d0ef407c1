"""From trials to a winner: sealed photos, finalists, the last training."""
