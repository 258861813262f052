"""The commands that keep a store well: `check`, `export`, `backup`, `gc plan`, `gc run`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from deployments.local_hub.shell import (
    HELP,
    ROOT,
    clock,
    failed,
    files,
    in_a_sentence,
    opened,
    reading,
    removing,
    there,
)


@click.command(context_settings=HELP)
@ROOT
def check(root: Path) -> None:
    """Read the whole store again, and list what is damaged.

    Exit code 1 if anything is.
    """
    from deployments.local_hub.check import damage

    there(root)
    found = 0
    with reading(root), opened(root) as hub:
        for line in damage(hub):
            print(line)
            found += 1
    sys.exit(1 if found else 0)


@click.command(name="export", context_settings=HELP)
@ROOT
@click.argument("repo")
@click.argument("target", type=click.Path(path_type=Path))
def export_(root: Path, repo: str, target: Path) -> None:
    """Write a repo's history as a bare git repository.

    REPO is as in its address, e.g. datasets/lab/scans; TARGET is a folder that does not exist yet.
    """
    from deployments.local_hub.export import export

    there(root)
    with reading(root), opened(root) as hub:
        found = hub.repos.named(repo)
        if found is None:
            failed(f"There is no repo {repo}", 2)
        try:
            print(f"{export(hub, found, target)} objects")
        except FileExistsError:
            failed(f"{target} exists already", 2)


@click.command(name="backup", context_settings=HELP)
@ROOT
@click.argument("target", type=click.Path(path_type=Path))
def backup_(root: Path, target: Path) -> None:
    """Copy what is new to the folder TARGET.

    It works while the server runs and writes: all that the store had when it began is in the copy, which is a store
    itself. `check --root TARGET` reads it. To restore it, serve it, or copy it elsewhere and serve that. Exit code 1,
    and a line for each, where the store itself does not have a file whole.
    """
    from deployments.local_hub.backup import BackupError, backup
    from deployments.local_hub.permissions import own_files_only

    own_files_only()
    with in_a_sentence(BackupError):
        copied = backup(root, target)
    for line in copied.damaged:
        print(line)
    print(f"{target} has all that {root} had at {clock(copied.began)}:" if not copied.damaged else f"{target} lacks:")
    print(f"{files(copied.files, copied.size)} new, {files(copied.there, copied.there_size)} as before")
    if copied.linked:
        print("It is on the disk of the store: it helps against mistakes, and not where the disk is lost")
    sys.exit(1 if copied.damaged else 0)


@click.group(context_settings=HELP)
def gc() -> None:
    """Remove what no commit needs, by a plan."""


@gc.command(name="plan", context_settings=HELP)
@ROOT
@click.argument("plan", type=click.Path(path_type=Path))
@click.option(
    "--keep-days", type=click.FloatRange(min=1), default=30, show_default=True, metavar="DAYS",
    help="What was sent, promised, committed or left by a branch in the last days stays.",
)  # fmt: skip
def gc_plan(root: Path, plan: Path, keep_days: float) -> None:
    """Write to the new file PLAN what nothing needs, and why. Removes nothing, and works while the server runs."""
    from deployments.local_hub.garbage.needed import StoreDamagedError
    from deployments.local_hub.garbage.plan import PlanError, make, write
    from deployments.local_hub.garbage.summary import lines

    there(root)
    with in_a_sentence(StoreDamagedError, PlanError), reading(root), opened(root) as hub:
        made, looked = make(root, hub.database, keep_days)
        try:
            write(made, plan)
        except FileExistsError:
            failed(f"{plan} exists already: give the name of a new file", 2)
    for line in lines(made, looked, plan, root):
        print(line)


@gc.command(name="run", context_settings=HELP)
@ROOT
@click.argument("plan", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--yes-delete", type=int, metavar="BYTES", help="Do not ask; has to be the exact number of bytes that PLAN names."
)
def gc_run(root: Path, plan: Path, yes_delete: int | None) -> None:
    """Remove what PLAN names and nothing needs now. The server has to be stopped; it asks first."""
    from deployments.local_hub.garbage.needed import StoreDamagedError
    from deployments.local_hub.garbage.plan import PlanError, read
    from deployments.local_hub.garbage.remove import carry_out, check
    from deployments.local_hub.html import counted

    there(root)
    with in_a_sentence(StoreDamagedError, PlanError), removing(root):
        wanted = read(plan)
        with opened(root) as hub:
            check(wanted, root, hub.database)
            asked(root, len(wanted.items), wanted.size, len(wanted.commits), yes_delete)
            removed = carry_out(wanted, root, hub.database)
    for line in removed.kept:
        print(line)
    commits = f"{removed.commits:,} {'commit' if removed.commits == 1 else 'commits'}"
    print(f"Removed {files(removed.objects, removed.size)} and {commits}")
    if removed.gone:
        print(f"{counted(removed.gone)} of the plan {'was' if removed.gone == 1 else 'were'} gone already")


def asked(root: Path, objects: int, size: int, commits: int, yes_delete: int | None) -> None:
    """End here unless a person types the store's name, or a script has named the exact number of bytes."""
    if yes_delete is not None:
        if yes_delete != size:
            failed(f"The plan names {size} bytes, not {yes_delete}: nothing is removed", 2)
        return
    name = root.resolve().name
    print(f"{files(objects, size)} and {commits:,} commits go from {root.resolve()}, for ever.")
    typed = click.prompt(f"Type the name of the store's folder ({name}) to remove them", default="", show_default=False)
    if typed != name:
        failed("That is not its name: nothing is removed", 2)
