"""Changing nested folders: only the trees on the way to a changed path are read and written again."""

from __future__ import annotations

import sqlite3

from deployments.local_hub.errors import bad_path, bad_request, entry_not_found
from deployments.local_hub.git import FILE_MODE, FOLDER_MODE, Entry, Folder, Git

PATH_LIMIT = 1024  # bytes of a whole path
NAME_LIMIT = 255  # bytes of one name, what file systems of those who download can hold


def check_path(path: object) -> str:
    """The path, if a repo may contain it: relative, normal, nothing that a checkout could be tricked by.

    Raises 422 for anything else: absolute, `.`, `..`, empty parts, control characters, backslashes, `.git` in any case,
    over 1,024 bytes or a part over 255.
    """
    if not isinstance(path, str) or not path:
        raise bad_path("A path must be a text that is not empty")
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        raise bad_path("A path must be valid Unicode") from None
    if len(encoded) > PATH_LIMIT:
        raise bad_path(f"A path has at most {PATH_LIMIT} bytes")
    if "\\" in path or any(ord(character) < 32 or ord(character) == 127 for character in path):
        raise bad_path(f"Control characters and backslashes are not allowed in a path: {path!r}")
    for part in path.split("/"):
        # git refuses ".git" however a file system may spell it: case, trailing dots and blanks (verify_path)
        if part in ("", ".", "..") or part.rstrip(". ").lower() in (".git", "git~1"):
            raise bad_path(f"Invalid path: {path!r}")
        if len(part.encode()) > NAME_LIMIT:
            raise bad_path(f"A name in a path has at most {NAME_LIMIT} bytes")
    return path


class TreeEdit:
    """Changes on top of one commit's tree, held in memory until `write`."""

    def __init__(self, git: Git, connection: sqlite3.Connection, repo: int, root: str | None):
        self._git = git
        self._connection = connection
        self._repo = repo
        self._folders: dict[str, dict[str, Entry]] = {}  # those read for a change, by path; "" is the root
        self._inner: dict[str, list[str]] = {}  # of each of those, the paths of those directly in it
        self._folders[""] = dict(git.tree(repo, root, connection)) if root else {}

    def _folder(self, path: str, *, create: bool) -> dict[str, Entry] | None:
        found = self._folders.get(path)
        if found is not None:
            return found
        parent_path, _, name = path.rpartition("/")
        parent = self._folder(parent_path, create=create)
        if parent is None:
            return None
        entry = parent.get(name)
        if entry is None:
            if not create:
                return None
            found = {}
            parent[name] = Entry(FOLDER_MODE, "")  # its id is known when it is written
        elif entry.is_folder:
            found = dict(self._git.tree(self._repo, entry.oid, self._connection))
        elif create:
            raise bad_request(f"{path} is a file: nothing can be put below it")
        else:
            return None
        self._folders[path] = found
        self._inner.setdefault(parent_path, []).append(path)
        return found

    def get(self, path: str) -> Entry | None:
        """What is at a path now."""
        parent, _, name = path.rpartition("/")
        folder = self._folder(parent, create=False)
        return None if folder is None else folder.get(name)

    def put(self, path: str, blob: str) -> None:
        """Put a file at a path, in place of another file if there is one; 400 where a folder is."""
        parent, _, name = path.rpartition("/")
        folder = self._folder(parent, create=True)
        assert folder is not None
        old = folder.get(name)
        if old is not None and old.is_folder:
            raise bad_request(f"{path} is a folder: no file can take its place")
        folder[name] = Entry(FILE_MODE if old is None else old.mode, blob)

    def delete(self, path: str, *, folders_only: bool = False) -> None:
        """Remove a file or a whole folder; 404 where there is none."""
        parent_path, _, name = path.rpartition("/")
        parent = self._folder(parent_path, create=False)
        entry = None if parent is None else parent.get(name)
        if parent is None or entry is None or (folders_only and not entry.is_folder):
            raise entry_not_found(path)
        del parent[name]
        waiting = [path] if entry.is_folder else []
        while waiting:
            gone = waiting.pop()
            if self._folders.pop(gone, None) is not None:
                waiting += self._inner.pop(gone, ())

    def larger_than(self, entries: int) -> list[str]:
        """The folders with a change in them that have more entries than this."""
        return sorted(path for path, folder in self._folders.items() if len(folder) > entries)

    def write(self) -> str:
        """Store every changed folder, deepest first, without those left empty (git has none); the root's id."""
        for path in sorted(self._folders, key=lambda known: known.count("/"), reverse=True):
            if not path:
                continue
            parent_path, _, name = path.rpartition("/")
            parent = self._folders[parent_path]
            if self._folders[path]:
                parent[name] = Entry(FOLDER_MODE, self._store(self._folders[path]))
            else:
                parent.pop(name, None)
        return self._store(self._folders[""])

    def _store(self, folder: Folder) -> str:
        return self._git.add_tree(self._connection, self._repo, folder)
