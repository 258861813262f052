"""`python -m deployments`: the command bids-push, from a clone of the repository."""

from deployments.commands import bids_push

if __name__ == "__main__":
    bids_push(prog_name="python -m deployments")
