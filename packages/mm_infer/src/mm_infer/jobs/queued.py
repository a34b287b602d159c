"""What a queue holds: jobs, and how each of them is."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from mm_config.schema import UserError
from mm_config.specs import GenerationRequest
from mm_config.stored import from_payload

if TYPE_CHECKING:
    from sqlalchemy import RowMapping


class JobStatus(enum.Enum):
    """How a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED = (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)


class Held(enum.Enum):
    """What a worker learns when it renews its lease."""

    STILL = "still"
    """The job is its own."""
    CANCELLED = "cancelled"
    """Nobody wants the job any more."""
    LOST = "lost"
    """Its lease ran out, and the job went to another worker."""


class QueueFull(UserError):
    """More jobs wait than may."""


@attrs.frozen
class Job:
    """A video to make."""

    number: int
    """Its place in the order of submission."""
    id: str
    """`video_` and 32 hex digits."""
    model: str
    """spec_hash of what makes it."""
    request: GenerationRequest
    """What is asked for."""
    priority: int
    """Higher ones are made first."""
    status: JobStatus
    """How it is."""
    tries: int
    """How often it was begun."""
    worker: str | None
    """Who makes it, or did last."""
    token: str | None
    """What tells one holder of the job from the next."""
    progress: float
    """Share that is done, from 0 to 1."""
    reason: str | None
    """Why it failed, or why its last try did."""
    result: Mapping[str, Any] | None
    """What it came to."""
    parent: str | None
    """Id of the job that it is a variant of."""
    created_at: float
    """Seconds since 1970."""
    started_at: float | None
    """When its last try began."""
    finished_at: float | None
    """When it ended."""


def job_of(row: RowMapping) -> Job:
    """The job of a row of the table."""
    values = {field.name: row[field.name] for field in attrs.fields(Job)}
    request = from_payload(json.loads(row["request"]), "request")
    result = None if row["result"] is None else json.loads(row["result"])
    return Job(**{**values, "request": request, "status": JobStatus(row["status"]), "result": result})
