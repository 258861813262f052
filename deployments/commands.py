"""The command `bids-push`: what people type, with its arguments and its help; `python -m deployments` is the same.

`python -m deployments.deploy` and its like are these commands too, each by itself. A command imports what it does when
it is called, and no sooner: Prefect takes seconds, and help and completion should take none.
"""

from importlib import import_module
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from deployments.defaults import CHOICES, EVERY, SILENCE
from tasks.values.version import NAME, version

#: Commands of other modules, which know their arguments themselves.
ELSEWHERE = {"local-hub": "deployments.local_hub.commands"}
SHELLS = ("bash", "zsh", "fish")

HELP = {"help_option_names": ["-h", "--help"]}


class Commands(click.Group):
    """The commands of this module, and those of others by name, in the order in which a newcomer needs them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names."""
        return ["deploy", "worker", "gate", "restore", "staging", "watch", "cluster", "demo", "local-hub", "completion"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, if there is one."""
        if cmd_name not in ELSEWHERE:
            return super().get_command(ctx, cmd_name)
        found = import_module(ELSEWHERE[cmd_name]).local_hub
        assert isinstance(found, click.Command)
        return found


@click.group(cls=Commands, context_settings=HELP)
@click.version_option(version(), prog_name=NAME)
def bids_push() -> None:
    """Publish BIDS datasets on the Hugging Face Hub, as a Prefect workflow.

    The Prefect server is the one that PREFECT_API_URL names, or that `prefect config set` has kept. Runs are started in
    its UI, or with `prefect deployment run push-bids/manual`.
    """


@bids_push.command(context_settings=HELP)
def deploy() -> None:
    """Set up the Prefect server: work pool, deployments, alerts.

    Safe to repeat: schedules, parameters and limits that people have set stay as they are. Repeat it after each
    upgrade.
    """
    from deployments import deploy as done

    raise SystemExit(done.main())


@bids_push.command(
    context_settings={**HELP, "ignore_unknown_options": True, "allow_interspersed_args": False},
    options_metavar="[PREFECT'S OPTIONS]...",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="")
def worker(arguments: tuple[str, ...]) -> None:
    """Work on the runs that are due, and watch over all.

    Goes on until Ctrl-C. The Hub's token is in HF_TOKEN, and the folder for shards in BIDS_PUSH_STAGING_ROOT.
    Everything that is typed after the command is for `prefect worker start`: --name, --limit, --with-healthcheck, ...
    """
    from deployments import worker as done

    raise SystemExit(done.main(arguments))


@bids_push.command(context_settings=HELP)
@click.argument("gate", required=False, metavar="[REPO]")
@click.option("--decision", type=click.Choice(CHOICES["decision"]), help="Delete the staged files, or keep them.")
@click.option(
    "--removals",
    type=click.Choice(CHOICES["removals"]),
    help="Remove from the repo what the dataset no longer has, or keep it there.",
)
@click.option("--confirm-repo", metavar="NAME", help="The repo's name, to confirm which dataset this is about.")
@click.option("--remove-stale", is_flag=True, help="Also remove leftovers of older or broken runs.")
@click.option("--note", default="", metavar="TEXT", help="Why, and who you are: kept in the run's log.")
def gate(
    gate: str | None,
    decision: str | None,
    removals: str | None,
    confirm_repo: str | None,
    remove_stale: bool,
    note: str,
) -> None:
    """List the open gates, or decide at one.

    REPO is the repo's name (namespace/name), or the id of the run; without it, all open gates are listed. What the
    command line leaves open is asked on the terminal. Exit code 0: decided, or listed; 1: not decided, and what is
    printed last says why.
    """
    from deployments import gate as done

    raise SystemExit(done.main(done.Given(gate, decision, removals, confirm_repo, remove_stale, note)))


@bids_push.command(context_settings=HELP)
@click.argument("repo", metavar="REPO")
@click.argument("into", type=click.Path(path_type=Path, file_okay=False), metavar="FOLDER")
@click.option("--revision", default="main", show_default=True, metavar="NAME", help="A branch, a tag or a commit.")
@click.option(
    "--subject", "subjects", multiple=True, metavar="SUB", help="Only this subject, as sub-01 or 01. May be repeated."
)
@click.option(
    "--session", "sessions", multiple=True, metavar="SES", help="Only this session, as ses-1 or 1. May be repeated."
)
@click.option(
    "--datatype",
    "datatypes",
    multiple=True,
    metavar="TYPE",
    help="Only this datatype, for example anat. May be repeated.",
)
@click.option(
    "--path",
    "paths",
    multiple=True,
    metavar="PATTERN",
    help="Only the files that it names, as in a .gitignore: 'sub-01/'. May be repeated.",
)
def restore(
    repo: str,
    into: Path,
    revision: str,
    subjects: tuple[str, ...],
    sessions: tuple[str, ...],
    datatypes: tuple[str, ...],
    paths: tuple[str, ...],
) -> None:
    """Bring a published dataset back into a folder.

    REPO is its name on the Hub, as namespace/name; FOLDER is made if it is missing. Each file is checked by its sha256,
    and nothing in FOLDER is overwritten. Typed again, it goes on with what is missing. It needs no worker and no
    Prefect server; a private repo needs HF_TOKEN, or `hf auth login`. Exit code 0: all of it is restored; 1: not, and
    what is printed last says what and why.
    """
    from deployments import restore as done

    raise SystemExit(done.main(done.Given(repo, into, revision, subjects, sessions, datatypes, paths)))


@bids_push.command(context_settings=HELP)
@click.argument("root", required=False, type=click.Path(path_type=Path, file_okay=False))
def staging(root: Path | None) -> None:
    """List what is staged on this machine, and for which gate.

    ROOT is the staging root: BIDS_PUSH_STAGING_ROOT where it is not given.
    """
    from deployments import staging as done

    raise SystemExit(done.main(root))


@bids_push.command(context_settings=HELP)
@click.option("--once", is_flag=True, help="Name the runs that ended at their gates, and exit.")
@click.option(
    "--every", type=float, default=EVERY, show_default=True, metavar="SECONDS", help="The time between two looks."
)
@click.option(
    "--silence",
    type=float,
    default=SILENCE,
    show_default=True,
    metavar="SECONDS",
    help="The time after which a run that gives no sign of life counts as dead.",
)
def watch(once: bool, every: float, silence: float) -> None:
    """Name runs that cannot say themselves how they ended.

    These are gates that were cancelled or that nobody decided in time, and runs whose machine died. Goes on until
    Ctrl-C. Not needed beside `bids-push worker`, which watches too.
    """
    from deployments import watch as done

    raise SystemExit(done.main(once, every, silence))


@bids_push.command(context_settings=HELP)
@click.argument("source", required=False, type=click.Path(path_type=Path, file_okay=False), metavar="[DATASET]")
@click.option("--machines", type=int, default=1, show_default=True, help="How many processes to wait for.")
@click.option("--seconds", type=float, default=600.0, show_default=True, help="How long to wait for them.")
def cluster(source: Path | None, machines: int, seconds: float) -> None:
    """See whether a cluster's machines are set up.

    The cluster is the one of BIDS_PUSH_CLUSTER and BIDS_PUSH_CLUSTER_ARGUMENTS in this environment, which has to be the
    worker's. DATASET is a dataset's folder, which each machine has to see. Nothing is pushed or written. Exit code 0:
    all that came are set up; 1: not, and what is printed says what to do on which machine.
    """
    from deployments import try_cluster as done

    raise SystemExit(done.main(source, machines, seconds))


@bids_push.command(context_settings=HELP)
@click.option("--once", is_flag=True, help="Unattended: approve, load the result, and exit.")
@click.option("--sessions", type=int, metavar="N", help="A cut of so many sessions, instead of all 902.")
def demo(once: bool, sessions: int | None) -> None:
    """Show the whole chain on this machine, in a browser.

    Starts a Prefect server, a local Hub and a worker, publishes the tree of ds004884 with images made on the spot, and
    waits at the gate until Ctrl-C. It needs what the local Hub needs, and leaves all it makes in the folder .demo.
    """
    from deployments import demo as done

    raise SystemExit(done.main(once, sessions))


@bids_push.command(context_settings=HELP)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print what makes a shell complete these commands.

    \b
    ~/.bashrc                   eval "$(bids-push completion bash)"
    ~/.zshrc                    eval "$(bids-push completion zsh)"
    ~/.config/fish/config.fish  bids-push completion fish | source
    """
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(bids_push, {}, NAME, "_BIDS_PUSH_COMPLETE").source())


def alone(name: str) -> None:
    """One command by itself, as `python -m deployments.NAME`."""
    bids_push.commands[name](prog_name=f"python -m deployments.{name}")
