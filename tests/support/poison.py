"""Photos that kill their decoder."""

from __future__ import annotations

POISON_MARKER = "poison of the tests:"
"""What a photo begins with that is to kill its decoder, see jobs.decoding.decoder_child."""
