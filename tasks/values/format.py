"""How counts and sizes are written for people, on the card, in states and in artifacts alike."""


def number(count: int, noun: str) -> str:
    """Return a count with its noun: `1 shard`, `902 shards`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def in_units(count: int) -> str:
    """Return a number of bytes in decimal units, as the Hub shows them: `999 bytes`, `18 kB`, `293.0 GB`."""
    amount = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit in ("bytes", "kB") else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.2f} TB"
