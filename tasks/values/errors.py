"""The errors that a person can act on.

Each stage names its own at the top of its file, as subclasses of `PushError`; the message says what is wrong, with
which file or shard, and what to do. Whatever is not a `PushError` is a bug in bids-push, and keeps its stack trace.
"""


class PushError(Exception):
    """Stops a run or a shard, for a reason that the message explains to a person."""


class BadInput(PushError):
    """A parameter or a setting cannot be used as it is."""
