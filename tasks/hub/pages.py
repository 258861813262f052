"""The addresses of a target's pages on the Hub, for people."""

from urllib.parse import quote

from tasks.hub.connection import Connection


class Pages(Connection):
    """The addresses of a target's pages."""

    def url(self, path: str = "", at: str | None = None) -> str:
        """Return the address of the page for people of the repo, or of a file in it.

        Args:
            path: the file; empty for the repo itself.
            at: the commit or branch of the file; None is the target's revision.
        """
        page = f"{self.target.endpoint}/datasets/{self.target.repo_id}"
        return f"{page}/blob/{quote(at or self.target.revision, safe='')}/{quote(path)}" if path else page

    def branch_url(self) -> str:
        """Return the address of the page for people of the target: the repo at its revision."""
        revision = self.target.revision
        return self.url() if revision == "main" else f"{self.url()}/tree/{quote(revision, safe='')}"

    def commit_url(self, commit: str) -> str:
        """Return the address of the page for people of a commit."""
        return f"{self.url()}/commit/{commit}"
