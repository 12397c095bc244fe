"""Cut work into batches of few different sizes."""

from __future__ import annotations


def batch_sizes(count: int, *, largest: int) -> list[int]:
    """Split ``count`` items into batches whose sizes are ``largest`` and smaller powers of two.

    Engines that compile, or tune themselves, once for each shape then see few shapes.

    Args:
        count: Number of items, at least 0.
        largest: Most items in a batch, at least 1.

    Returns:
        Sizes that add up to ``count``, largest first.

    Raises:
        ValueError: A number is too small.
    """
    if count < 0 or largest < 1:
        raise ValueError(f"expected count >= 0 and largest >= 1, got {count} and {largest}")
    full, rest = divmod(count, largest)
    return [largest] * full + [1 << bit for bit in reversed(range(rest.bit_length())) if rest >> bit & 1]
