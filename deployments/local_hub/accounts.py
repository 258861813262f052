"""Accounts, organisations and tokens: who is calling, and what they may do in a namespace.

A token is shown once and stored as its sha256 only (it is 192 random bits: no salt or slow hash is needed). Its role
caps what its account may do; an account may write in its own namespace and in organisations where it is a writer.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import time
from dataclasses import dataclass
from typing import Literal

from deployments.local_hub.database import Database
from deployments.local_hub.errors import forbidden, invalid_token, token_needed

Role = Literal["read", "write"]

# What huggingface_hub takes as a namespace: letters, digits, '_', and inside '-' and '.', at most 96 characters.
NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?")

# First parts of this Hub's own URLs: an account of that name would hide behind them.
RESERVED = {"api", "cas", "datasets", "models", "spaces", "lfs", "lfs-part", "lfs-complete"}


@dataclass(frozen=True)
class Identity:
    """Who is calling: the account's name (None for anonymous), the role of the token, and the token's digest in hex."""

    name: str | None
    role: Role = "read"
    token: str | None = None


ANONYMOUS = Identity(None)


class Accounts:
    """The accounts of one Hub."""

    def __init__(self, database: Database):
        self._database = database

    def create_token(
        self, name: str, role: Role, orgs: dict[str, Role] | None = None, lifetime: float | None = None
    ) -> str:
        """Make a token for `name`, creating the account and its organisations where they are missing.

        `lifetime` is in seconds, None for ever. Raises ValueError for a name the Hub would not take, or one that is
        an organisation where an account is meant (and the other way round).
        """
        now = time.time()
        token = "hf_" + secrets.token_urlsafe(24)
        with self._database.write() as connection:
            for account, kind in [(name, "user"), *((org, "org") for org in orgs or {})]:
                if not is_account_name(account):
                    raise ValueError(f"{account!r} is no name for an account: letters, digits, '-', '_' and '.'")
                connection.execute("INSERT OR IGNORE INTO account VALUES (?, ?, ?)", (account, kind, now))
                (found,) = connection.execute("SELECT kind FROM account WHERE name = ?", (account,)).fetchone()
                if found != kind:
                    raise ValueError(f"{account!r} exists and is {'an organisation' if found == 'org' else 'a user'}")
            for org, org_role in (orgs or {}).items():
                connection.execute("INSERT OR REPLACE INTO membership VALUES (?, ?, ?)", (org, name, org_role))
            connection.execute(
                "INSERT INTO token VALUES (?, ?, ?, ?, ?)",
                (_digest(token), name, role, now, now + lifetime if lifetime is not None else None),
            )
        return token

    def revoke(self, name: str) -> int:
        """Make every token of an account worthless; returns how many there were. What it owns stays."""
        with self._database.write() as connection:
            return connection.execute("DELETE FROM token WHERE account = ?", (name,)).rowcount

    def identify(self, authorization: str | None, *, password: bool = False) -> Identity:
        """Who sent this Authorization header; anonymous without one, 401 for a wrong or expired token.

        With `password`, the token may come as one, with any user name: git and git-lfs send it so. A browser remembers
        a password, and sends it along with whatever another site makes it ask for; so only their routes take one.
        """
        if authorization is None:
            return ANONYMOUS
        scheme, _, token = authorization.partition(" ")
        basic = password and scheme.lower() == "basic"
        token = _password(token) if basic else token.strip()
        if not token or not (basic or scheme.lower() == "bearer"):
            raise invalid_token()
        return self.holder(_digest(token).hex())

    def holder(self, digest: str | None) -> Identity:
        """Who has the token of this digest, as of now; anonymous for None, 401 where it was revoked or has expired."""
        if digest is None:
            return ANONYMOUS
        query = "SELECT account, role, expires FROM token WHERE digest = ?"
        row = self._database.read().execute(query, (bytes.fromhex(digest),)).fetchone()
        if row is None or (row[2] is not None and row[2] < time.time()):
            raise invalid_token()
        return Identity(row[0], row[1], digest)

    def orgs(self, name: str) -> list[tuple[str, Role]]:
        """The organisations of an account, each with its role there."""
        query = "SELECT org, role FROM membership WHERE account = ? ORDER BY org"
        return [(org, role) for org, role in self._database.read().execute(query, (name,))]

    def find(self, name: str) -> tuple[str, str] | None:
        """The account's spelling and kind ("user" or "org"), or None."""
        query = "SELECT name, kind FROM account WHERE name = ?"
        row: tuple[str, str] | None = self._database.read().execute(query, (name,)).fetchone()
        return row

    def role_in(self, identity: Identity, namespace: str) -> Role | None:
        """What the caller may do with everything in a namespace, private repos included; None for nothing."""
        if identity.name is None:
            return None
        if identity.name.lower() == namespace.lower():
            return identity.role
        query = "SELECT role FROM membership WHERE org = ? AND account = ?"
        row = self._database.read().execute(query, (namespace, identity.name)).fetchone()
        if row is None:
            return None
        return "write" if row[0] == "write" and identity.role == "write" else "read"

    def require_write(self, identity: Identity, namespace: str) -> None:
        """Raise unless the caller may write in the namespace: 401 when anonymous, 403 otherwise."""
        if identity.name is None:
            raise token_needed()
        if identity.role != "write":
            raise forbidden("This token has the role 'read'; a token with the role 'write' is needed")
        if self.role_in(identity, namespace) != "write":
            raise forbidden(f'You don\'t have the rights to write under the namespace "{namespace}"')


def is_account_name(name: str) -> bool:
    """Whether an account or organisation may be called this."""
    return NAME.fullmatch(name) is not None and "--" not in name and ".." not in name and name.lower() not in RESERVED


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _password(encoded: str) -> str:
    """The password of an Authorization header of the kind Basic; "" if there is none to be read."""
    try:
        return base64.b64decode(encoded.strip(), validate=True).decode().partition(":")[2].strip()
    except ValueError:
        return ""
