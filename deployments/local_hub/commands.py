"""The local Hub's commands: `serve`, `token`, `revoke`, and those that keep a store well (`store_commands`).

They import what they do when they are called: help and completion need nothing but click.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deployments.local_hub.shell import HELP, ROOT, failed, opened
from deployments.local_hub.store_commands import backup_, check, export_, gc

if TYPE_CHECKING:
    from deployments.local_hub.accounts import Role


class NeedsMore(click.Group):
    """Commands that say in a sentence what has to be installed for them."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run one command."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] == "deployments":
                raise
            raise click.ClickException(
                f"the local Hub needs {error.name}, which is not installed. What it needs is an extra of the package: "
                "pip install 'bids-push[local-hub]'; in a clone of the repository: make local-hub"
            ) from error


@click.group(name="local-hub", cls=NeedsMore, context_settings=HELP)
def local_hub() -> None:
    """Run a Hub for one machine or one lab.

    huggingface_hub and `datasets` work with it unchanged, with HF_ENDPOINT set to the address that `serve` prints.
    """


@local_hub.command(name="serve", context_settings=HELP)
@ROOT
@click.option("--port", type=int, required=True, help="0 for a free one.")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; another one lets other machines in."
)
@click.option("--multipart-above", type=int, metavar="BYTES", help="LFS files over this go in parts.")
@click.option(
    "--limits", default="", metavar="NAME=NUMBER,...",
    help="Limits as huggingface.co has them: api=1000,resolvers=5000,pages=200 requests in 5 minutes, commits=128 an "
    "hour, entries=10000 in a folder.",
)  # fmt: skip
def serve_(root: Path, port: int, host: str, multipart_above: int | None, limits: str) -> None:
    """Serve the Hub until it is stopped.

    It prints its address, which clients take as HF_ENDPOINT. Ctrl-C or SIGTERM stops it.
    """
    from deployments.local_hub.hub import MULTIPART_ABOVE
    from deployments.local_hub.limits import Limits
    from deployments.local_hub.locks import HubInUseError
    from deployments.local_hub.serve import serve

    try:
        limited = Limits.parse(limits) if limits else Limits()
    except ValueError as error:
        failed(f"--limits: {error}", 2)
    above = MULTIPART_ABOVE if multipart_above is None else multipart_above
    try:
        with opened(root, serving=True, multipart_above=above) as hub, listening(host, port):
            serve(hub, host, port, limited)
    except HubInUseError as error:
        failed(str(error), 1)


@contextmanager
def listening(host: str, port: int) -> Iterator[None]:
    """Say in a sentence what it means that the system refuses an address."""
    try:
        yield
    except OSError as error:
        failed(f"Cannot listen on {host}:{port}: {error}", 1)


@local_hub.command(context_settings=HELP)
@ROOT
@click.argument("name")
@click.option("--role", type=click.Choice(["read", "write"]), required=True, help="What the token may do.")
@click.option(
    "--org", "orgs", multiple=True, metavar="NAME[:ROLE]", help="An organisation the account may write in (or read)."
)
@click.option("--valid-for", type=float, metavar="HOURS", help="For ever without it.")
def token(root: Path, name: str, role: Role, orgs: tuple[str, ...], valid_for: float | None) -> None:
    """Make a token for the account NAME; it is shown this once. The account is made if there is none."""
    roles = dict(role_in(given) for given in orgs)
    lifetime = None if valid_for is None else valid_for * 3600
    with opened(root) as hub:
        try:
            print(hub.accounts.create_token(name, role, roles, lifetime))
        except ValueError as error:
            failed(str(error), 2)


def role_in(given: str) -> tuple[str, Role]:
    """An organisation, and what an account may do in it: NAME, NAME:read or NAME:write."""
    name, _, role = given.partition(":")
    if role not in ("", "read", "write"):
        failed(f"--org {given}: the role is read or write", 2)
    return name, "read" if role == "read" else "write"


@local_hub.command(context_settings=HELP)
@ROOT
@click.argument("name")
def revoke(root: Path, name: str) -> None:
    """Make every token of the account NAME worthless; its repos stay."""
    with opened(root) as hub:
        ended = hub.accounts.revoke(name)
        print(f"{ended} {'token' if ended == 1 else 'tokens'}")


for command in (check, export_, backup_, gc):
    local_hub.add_command(command)
