"""The settings of this machine, from the environment variables `BIDS_PUSH_*`.

What belongs to one run is a parameter of the flow, because people see parameters in the form. What belongs to the
machine is here. The Hub's own settings (HF_TOKEN, HF_ENDPOINT, HF_HOME) are read by its client.

Code that needs a setting reads it anew with `Settings()`. A bad setting is a `BadInput` wherever it is read first; a
flow reads all of them before anything else. A variable that is set to nothing counts as not set.
"""

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from tasks.values.errors import BadInput

PREFIX = "BIDS_PUSH_"
DEFAULT_WORKERS = 2  # shards embedded at the same time: what a small machine with one disk keeps up with
LONGEST_ROUND = 3650  # nights: ten years
LONGEST_GATE = 3650.0  # days: ten years, within what a server can keep as a date


class Settings(BaseSettings):
    """Every `BIDS_PUSH_*` variable, with what it is for."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True)

    def __init__(self) -> None:
        """Read the environment.

        Raises:
            BadInput: one or more variables cannot be used; the message has a line for each.
        """
        try:
            super().__init__()
        except SettingsError as error:
            named = re.search(r'field "(\w+)"', str(error))
            raise BadInput(
                f"{PREFIX}{named[1].upper() if named else '...'} has to be JSON ({error.__cause__}). Correct "
                "it in the worker's environment, or unset it."
            ) from error
        except ValidationError as error:
            lines = [
                f"{PREFIX}{'_'.join(map(str, one['loc'])).upper()}: {one['input']!r} cannot be used. {one['msg']}."
                for one in error.errors()
            ]
            raise BadInput("\n".join([*lines, "Correct it in the worker's environment, or unset it."])) from error

    staging_root: Path = Field(
        Path("~/.local/share/bids-push/staging"), description="where shards are staged until a person lets them go"
    )
    check: Literal["trailer", "full"] = Field(
        "full",
        description="what of an image's gzip stream is checked as it is embedded: all of it by the CRC of each member, "
        "or its length alone ('trailer'), which sees a file that was cut off and no damage within",
    )
    stage_workers: int = Field(DEFAULT_WORKERS, ge=1, description="shards embedded at the same time")
    cluster: str = Field(
        "",
        description="the Dask cluster that stages and sends: the address of one that is there (tcp://host:8786), or "
        "the class of one that a run makes for itself (dask_jobqueue.SLURMCluster). None: threads of this machine",
    )
    cluster_arguments: dict[str, Any] = Field(
        {}, description="what the cluster's class is made with, as JSON: cores, memory, walltime and so on"
    )
    cluster_adapt: dict[str, Any] = Field(
        {}, description='how the cluster grows and shrinks, as JSON: {"minimum_jobs": 1, "maximum_jobs": 50}'
    )
    cluster_patience: float = Field(
        24.0, gt=0, description="hours that a run waits while the cluster has no machine at all, as in a long queue"
    )
    part_bytes: int = Field(
        256 << 20, ge=1, description="bytes of source files that one process of a cluster stages and sends at a time"
    )
    max_staged_bytes: int | None = Field(
        None, ge=1, description="bytes that may be staged for one target at a time; a larger dataset goes in waves"
    )
    transfer_shards: int = Field(128, ge=1, le=256, description="small shards sent together, in one round trip")
    transfers: int = Field(
        3, ge=1, le=16, description="groups of shards sent at the same time, so that the wire is never idle"
    )
    transfer_bytes: int = Field(
        256 << 20,  # the client holds about twice as many in memory
        ge=1,
        description="bytes of shards sent at the same time: what a killed run may have to send again. A larger shard "
        "is sent while no other is",
    )
    batch_shards: int = Field(
        1000,
        ge=1,
        le=1000,
        description="shards in one commit at most; it begins with 90 and takes more as long as the Hub is fast",
    )
    commits_per_hour: int | None = Field(
        None,
        ge=1,
        description="commits in an hour that a run keeps to; 120 on huggingface.co, else as many as it likes",
    )
    batch_bytes: int = Field(4 << 30, ge=1, description="bytes in one commit, however few shards")
    gate_days: float = Field(
        30.0,
        gt=0,
        le=LONGEST_GATE,
        description="days that a gate waits for a decision; then the run ends, and nothing is deleted",
    )
    max_change: float = Field(
        0.10,
        ge=0,
        le=1,
        description="the part of the published images (0.10: a tenth) that may be gone from the dataset or have other "
        "bytes; more stops a push before it stages, until accept_changes has the exact number",
    )
    sample_shards: int = Field(
        3, ge=1, description="shards that a run reads back from the Hub at least, when verification is 'sample'"
    )
    sample_nights: int = Field(
        30,  # as long as a gate waits, so each shard comes back while its staged file may still be there; and a
        ge=1,  # thirtieth of 300 GB is read in a quarter of an hour at 100 Mbit/s
        le=LONGEST_ROUND,
        description="nights in which each published shard is read back once, when verification is 'sample'",
    )


def stage_workers() -> int:
    """Return how many shards are embedded at the same time, or the default if a setting is bad.

    This is for code that needs the number before a run can report a bad setting.
    """
    try:
        return Settings().stage_workers
    except BadInput:
        return DEFAULT_WORKERS
