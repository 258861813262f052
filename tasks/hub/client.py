"""The Hub as bids-push needs it: one target, read at pinned commits, with errors for people.

Everything goes through huggingface_hub's public client, so the endpoint may be huggingface.co or any server that speaks
the same protocol. What it can do is put together here:

- `connection`: address, token, the client, and every call with its errors explained (`errors`, `lacking`)
- `setup`: the repo made, private and gated as asked, with its branch
- `heads`: the head of the revision, never an older one than was seen before (`newest_head`)
- `reading`: the listing, and the bytes of files
- `sending`: content sent, and commits made, as many as the Hub allows (`budget`)
- `pages`: the addresses of pages for people

What is read is true for one commit only, so every method that reads takes the commit to read at.
"""

from tasks.hub.reading import Reading
from tasks.hub.sending import Sending
from tasks.hub.setup import Setup


class Hub(Setup, Reading, Sending):
    """One target on its Hub."""
