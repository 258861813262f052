"""The errors that a person can act on.

Each stage names its own errors at the top of its file, as subclasses of `PushError`. The message says what is wrong,
with which file or shard, and what to do. An exception that is not a `PushError` is a bug in bids-push, and keeps its
stack trace.
"""


class PushError(Exception):
    """An error that stops a run or a shard, and explains the reason to a person."""


class BadInput(PushError):
    """A parameter or a setting cannot be used as it is."""
