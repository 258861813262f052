"""Settings of this machine, from the environment: `BIDS_PUSH_*`.

What belongs to one run is a parameter of the flow, because parameters are the form that people see. What belongs to
the machine is here. The Hub's own settings are the client's: HF_TOKEN, HF_ENDPOINT, HF_HOME.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Every `BIDS_PUSH_*` variable, with what it is for."""

    model_config = SettingsConfigDict(env_prefix="BIDS_PUSH_", frozen=True)

    staging_root: Path = Field(
        Path("~/.local/share/bids-push/staging"), description="where shards are staged until a person lets them go"
    )
    check: Literal["trailer", "full"] = Field(
        "trailer",
        description="what of an image's gzip stream is checked as it is embedded: its length, or all of it by its CRC",
    )
    stage_workers: int = Field(2, ge=1, description="shards embedded at the same time")
    max_staged_bytes: int | None = Field(
        None, ge=1, description="bytes that may be staged for one target at a time; a larger dataset goes in waves"
    )
    transfer_shards: int = Field(128, ge=1, le=256, description="small shards sent together, in one round trip")
    transfer_bytes: int = Field(
        256 << 20, ge=1, description="bytes of shards sent together: what a killed run may have to send again"
    )
    batch_shards: int = Field(
        90, ge=1, le=100, description="shards in one commit; the Hub's documentation recommends 50 to 100 files"
    )
    batch_bytes: int = Field(4 << 30, ge=1, description="bytes in one commit, however few shards")
    gate_days: float = Field(
        30.0, gt=0, description="days that a gate waits for a decision; then the run ends, and nothing is deleted"
    )
    sample_shards: int = Field(3, ge=1, description="shards read back from the Hub when verification is 'sample'")
