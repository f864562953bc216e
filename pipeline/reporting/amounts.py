"""Amounts as people say them: how long, how large."""


def lasting(hours: float) -> str:
    """Hours as people say them: 12.3 s, 4.5 min, 1,234.50 h."""
    for unit, size in (("s", 1 / 3600), ("min", 1 / 60)):
        if hours < 60 * size:
            return f"{hours / size:.1f} {unit}"
    return f"{hours:,.2f} h"


def megabytes(num_bytes: int) -> str:
    """Bytes as stores count them, in powers of ten: 12.3 kB, 1,234.5 MB."""
    return f"{num_bytes / 1e6:,.1f} MB" if num_bytes >= 1e6 else f"{num_bytes / 1e3:,.1f} kB"
