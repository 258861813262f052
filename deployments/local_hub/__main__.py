"""The local Hub's commands: `serve`, `token`, `revoke`, `check`, `export`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from deployments.local_hub.accounts import Role
from deployments.local_hub.hub import MULTIPART_ABOVE, Hub, HubInUseError
from deployments.local_hub.serve import serve


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deployments.local_hub", description="A Hub for one machine")
    commands = parser.add_subparsers(dest="command", required=True)
    root = argparse.ArgumentParser(add_help=False)
    root.add_argument("--root", type=Path, required=True, metavar="DIR", help="the folder that holds everything")

    server = commands.add_parser("serve", parents=[root], help="serve until SIGTERM; prints the endpoint")
    server.add_argument("--port", type=int, required=True, help="0 for a free one")
    server.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; this machine alone unless told otherwise"
    )
    server.add_argument(
        "--multipart-above", type=int, default=MULTIPART_ABOVE, metavar="BYTES", help="LFS files over this go in parts"
    )

    token = commands.add_parser("token", parents=[root], help="make a token; it is shown this once")
    token.add_argument("name", help="the account; created if there is none")
    token.add_argument("--role", choices=["read", "write"], required=True)
    token.add_argument(
        "--org",
        action="append",
        default=[],
        metavar="NAME[:ROLE]",
        help="an organisation the account may write in (or read)",
    )
    token.add_argument("--valid-for", type=float, metavar="HOURS", help="for ever without it")

    commands.add_parser(
        "check", parents=[root], help="re-hash everything; exit code 1 and a list if something is damaged"
    )

    revoke = commands.add_parser("revoke", parents=[root], help="make every token of an account worthless")
    revoke.add_argument("name", help="the account; its repos stay")

    export = commands.add_parser("export", parents=[root], help="write a repo's history as a bare git repository")
    export.add_argument("repo", help="as in its address, e.g. datasets/lab/scans")
    export.add_argument("target", type=Path, help="a folder that does not exist yet")

    options = parser.parse_args(arguments)
    if options.command == "serve":
        return _serve(options)
    if options.command == "token":
        return _token(options)
    if options.command == "revoke":
        return _revoke(options)
    return _export(options) if options.command == "export" else _check(options)


def _serve(options: argparse.Namespace) -> int:
    try:
        hub = Hub(options.root, serving=True, multipart_above=options.multipart_above)
    except HubInUseError as error:
        print(error, file=sys.stderr)
        return 1
    try:
        serve(hub, options.host, options.port)
    except OSError as error:
        print(f"Cannot listen on {options.host}:{options.port}: {error}", file=sys.stderr)
        return 1
    finally:
        hub.close()
    return 0


def _token(options: argparse.Namespace) -> int:
    orgs: dict[str, Role] = {}
    for given in options.org:
        name, _, role = given.partition(":")
        if role not in ("", "read", "write"):
            print(f"--org {given}: the role is read or write", file=sys.stderr)
            return 2
        orgs[name] = "read" if role == "read" else "write"
    hub = Hub(options.root)
    try:
        lifetime = None if options.valid_for is None else options.valid_for * 3600
        print(hub.accounts.create_token(options.name, options.role, orgs, lifetime))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    finally:
        hub.close()
    return 0


def _revoke(options: argparse.Namespace) -> int:
    hub = Hub(options.root)
    try:
        print(f"{hub.accounts.revoke(options.name)} tokens")
    finally:
        hub.close()
    return 0


def _export(options: argparse.Namespace) -> int:
    from deployments.local_hub.export import export

    hub = Hub(options.root)
    try:
        repo = hub.repos.named(options.repo)
        if repo is None:
            print(f"There is no repo {options.repo}", file=sys.stderr)
            return 2
        print(f"{export(hub, repo, options.target)} objects")
    except FileExistsError:
        print(f"{options.target} exists already", file=sys.stderr)
        return 2
    finally:
        hub.close()
    return 0


def _check(options: argparse.Namespace) -> int:
    from deployments.local_hub.check import damage

    if not (options.root / "hub.sqlite3").is_file():
        print(f"{options.root} holds no Hub", file=sys.stderr)
        return 2
    hub = Hub(options.root)
    found = 0
    try:
        for line in damage(hub):
            print(line)
            found += 1
    finally:
        hub.close()
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
