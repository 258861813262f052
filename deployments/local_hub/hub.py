"""One Hub: its folder on disk and the parts that work on it, put together."""

from __future__ import annotations

import asyncio
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deployments.local_hub.accounts import Accounts
from deployments.local_hub.changes import History
from deployments.local_hub.commits import Commits
from deployments.local_hub.content import Content
from deployments.local_hub.database import Database, fsync_folder
from deployments.local_hub.discussions import Discussions
from deployments.local_hub.git import Git
from deployments.local_hub.holdings import Holdings
from deployments.local_hub.listing import Listing
from deployments.local_hub.locks import take_for_serving
from deployments.local_hub.multipart import Multiparts
from deployments.local_hub.repos import Repos
from deployments.local_hub.rewrite import Rewriter
from deployments.local_hub.signing import Signer
from deployments.local_hub.xet.older import take_over
from deployments.local_hub.xet.store import XetStore

THREADS = 8  # requests that work at the same time; the rest queue
HEAVY_THREADS = 2  # of them that read cards, patterns and large bodies; what these cost is limited too
PACK_THREADS = 2  # clones that are put together at the same time
HISTORY_THREADS = 1  # whole histories that are listed or rewritten at the same time
PREVIEW_THREADS = 1  # shards that people look into at the same time
SHARD_THREADS = 4  # shards whose files are verified at the same time, which takes as long as reading the files
MULTIPART_ABOVE = 512 * 1024 * 1024  # bytes of an LFS file from which on it is sent in parts


class Hub:
    """The parts of a Hub over one folder.

    `serving` takes the folder for this process alone and clears what was half received when the last one ended.
    """

    def __init__(self, root: Path, *, serving: bool = False, multipart_above: int = MULTIPART_ABOVE):
        self.root = root
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.incoming = root / "tmp"
        self._lock = take_for_serving(root) if serving else None
        if serving:
            shutil.rmtree(self.incoming, ignore_errors=True)
        self.incoming.mkdir(exist_ok=True)
        self.database = Database(root / "hub.sqlite3")
        if serving:
            self.database.forget_backup()
        self.signer = Signer(self.database.secret)
        self.accounts = Accounts(self.database)
        self.repos = Repos(self.database, self.accounts)
        self.git = Git(self.database)
        self.holdings = Holdings(self.database)
        self.discussions = Discussions(self.database)
        self.listing = Listing(self.git, self.holdings)
        self.history = History(self.git)
        self.content = Content(root)
        self.xet = XetStore(root, self.database, self.holdings)
        take_over(self.database)
        self.commits = Commits(self.database, self.git, self.stored, self.discussions)
        self.rewriter = Rewriter(self.database, self.git, self.holdings)
        self.multiparts = Multiparts(self.incoming)
        self.multipart_above = multipart_above
        self.workers = ThreadPoolExecutor(THREADS, "hub")
        self.heavy = ThreadPoolExecutor(HEAVY_THREADS, "hub-heavy")
        self.shards = ThreadPoolExecutor(SHARD_THREADS, "hub-shards")
        self.packs = ThreadPoolExecutor(PACK_THREADS, "hub-packs")
        self.histories = ThreadPoolExecutor(HISTORY_THREADS, "hub-histories")
        self.previews = ThreadPoolExecutor(PREVIEW_THREADS, "hub-previews")
        self.previews_waiting = 0
        self.turns: dict[str, asyncio.Semaphore] = {}
        fsync_folder(root)

    def stored(self, repo: int, sha256: str) -> int | None:
        """Bytes of content that the repo holds and that is there; None if it has to be sent (again)."""
        size = self.holdings.size(repo, sha256)
        if size is None or self.content.has(sha256):
            return size
        return None if self.xet.by_sha256(repo, sha256) is None else size

    def turn(self, account: str) -> asyncio.Semaphore:
        """What an account waits for before a shard of it is verified, so that it cannot take all threads for that."""
        return self.turns.setdefault(account, asyncio.Semaphore(SHARD_THREADS // 2))

    def close(self) -> None:
        """Finish what is under way and let go of the folder."""
        for pool in (self.workers, self.heavy, self.shards, self.packs, self.histories, self.previews):
            pool.shutdown()
        self.xet.close()
        self.database.close()
        if self._lock is not None:
            os.close(self._lock)
