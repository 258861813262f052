"""`python -m deployments.local_hub`: the local Hub's commands."""

from typing import NoReturn

from deployments.local_hub.commands import local_hub


def main() -> NoReturn:
    """Run one command, and end with its exit code."""
    raise SystemExit(local_hub(prog_name="python -m deployments.local_hub"))


if __name__ == "__main__":
    main()
