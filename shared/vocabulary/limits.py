"""What an API key may do beyond its scope."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class KeyLimits(BaseModel):
    """Limits of one key; null leaves the farm's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_queued: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, description="Videos that may wait; null for WANFARM_MAX_QUEUED_PER_KEY."
    )
    submit_per_min: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, description="Submits in a minute; null for WANFARM_SUBMIT_PER_MIN."
    )
    gpu_seconds_per_day: Annotated[float, Field(gt=0, le=1e9)] | None = Field(
        default=None, description="GPU-seconds of a day in UTC; null for no end."
    )
    max_priority: Annotated[int, Field(ge=-10, le=10)] | None = Field(
        default=None, description="Highest priority; null for 0, and for 10 with scope admin."
    )


OWN = KeyLimits()  # the farm's
