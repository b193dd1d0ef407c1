"""The fast way to score: bf16, channels last, many views in a pass."""
