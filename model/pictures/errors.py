"""Why some bytes give no photo to score."""

from __future__ import annotations

from model.pictures.cuts import is_cut


class ImageError(Exception):
    """These bytes give no photo to score.

    Attributes:
        code: short stable reason, snake_case: empty, not_an_image, unsupported_format, zero_size, too_many_pixels,
            animated, truncated or corrupt.
        detail: a sentence for the person who looks after the archive.
    """

    def __init__(self, code: str, detail: str) -> None:
        """Keeps both as ``args``, so the error survives a process boundary."""
        super().__init__(code, detail)
        self.code = code
        self.detail = detail

    def __str__(self) -> str:
        """Returns ``code: detail``, the form of the result table's error column."""
        return f"{self.code}: {self.detail}"


def explain_damage(data: bytes, error: Exception) -> ImageError:
    """Returns the error of a broken photo; tells a file that was cut short from one that was altered."""
    if is_cut(data) or isinstance(error, EOFError) or "truncated" in str(error).lower():
        return ImageError("truncated", f"the file ends after {len(data)} bytes, before the picture does: {error}")
    return ImageError("corrupt", f"the picture cannot be decoded: {str(error).strip() or type(error).__name__}")
