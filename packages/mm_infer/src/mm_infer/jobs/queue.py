"""A queue of videos to make that outlives its processes, and is shared by any number of hosts.

What `submit` returns is committed. A worker holds a job for as long as it renews its lease: a killed worker's
job is taken by another one, and what a worker says of a job that it no longer holds is not heard.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from mm_config.runs import database_errors, engine_of, writing
from mm_config.schema import Problem, UserError
from mm_config.specs import GenerationRequest
from mm_config.stored import to_payload
from mm_infer.jobs.queued import ENDED, Held, Job, JobStatus, QueueFull, job_of
from mm_infer.jobs.table import make_table, queue_table

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Engine, ScalarSelect, Table, Update

FILE_NAME = "queue.sqlite"
"""Beside the run folders, where no database is named. The index beside it can be made anew, a queue can't."""
MOST_TRIES = 5
"""How often a job is begun before a worker that is lost with it counts as its fault."""


@attrs.frozen(eq=False)
class Queue:
    """The jobs of a runs folder, or of the database that MM_RUNS_URL names."""

    engine: Engine
    """The """
    table: Table
    """Of the jobs."""

    def submit(
        self,
        requests: Sequence[GenerationRequest],
        model: str,
        *,
        keys: Sequence[str] | None = None,
        priority: int = 0,
        parent: str | None = None,
        most_waiting: int | None = None,
    ) -> list[Job]:
        """Adds jobs, all or none; they are committed when this returns.

        Args:
            requests: What is asked for.
            model: spec_hash of what is to make it.
            keys: What tells each job from others: where one has a key already, and has not failed or been
                cancelled, that job is returned instead.
            priority: Higher ones are made first, equal ones in the order of submission.
            parent: Id of the job that these are variants of.
            most_waiting: How many may wait for a worker.

        Raises:
            QueueFull: More would wait.
        """
        # Alone, so that two who submit the same, or the last that may wait, see each other.
        with writing(self.engine) as connection:
            found: list[Job] = []
            for place, request in enumerate(requests):
                key = keys[place] if keys is not None else None
                found += self._known(connection, key) or [
                    self._add(connection, request, model, key, priority, parent)
                ]
            waiting = self._count(connection, JobStatus.QUEUED)
            if most_waiting is not None and waiting > most_waiting:
                raise QueueFull(f"the queue is full: {most_waiting} videos wait already")
            return found

    def claim(self, worker: str, models: Sequence[str], lease: float) -> Job | None:
        """Takes the next job that waits, or whose worker has let its lease run out; None where none does.

        Args:
            worker: Who takes it.
            models: spec_hashes that it can carry out.
            lease: Seconds for which the job is its own, until it renews.
        """
        columns = self.table.c
        with self._writing() as connection:
            now = self._now(connection)
            lost = (columns.status == JobStatus.RUNNING.value) & (columns.lease_until < now)
            gone = f"{MOST_TRIES} workers were lost with it"
            connection.execute(
                self._change(lost & (columns.tries >= MOST_TRIES), JobStatus.FAILED, now, reason=gone)
            )
            connection.execute(self._change(lost & columns.cancelled, JobStatus.CANCELLED, now))
            free = (columns.status == JobStatus.QUEUED.value) | lost
            first = self._first(free & columns.model.in_(models))
            taken = {
                "status": JobStatus.RUNNING.value,
                "tries": columns.tries + 1,
                "worker": worker,
                "token": uuid.uuid4().hex,
                "lease_until": now + lease,
                "progress": 0.0,
                "started_at": now,
            }
            update = self.table.update().where(columns.number == first).values(taken)
            rows = connection.execute(update.returning(*columns)).mappings().all()
            return job_of(rows[0]) if rows else None

    def renew(self, job: Job, lease: float, progress: float) -> Held:
        """Keeps a job that a worker holds, and tells how far it is."""
        with self._writing() as connection:
            columns = self.table.c
            values = {"lease_until": self._now(connection) + lease, "progress": progress}
            update = self.table.update().where(self._held(job)).values(values)
            found = connection.execute(update.returning(columns.cancelled)).scalars().all()
            return Held.LOST if not found else Held.CANCELLED if found[0] else Held.STILL

    def complete(self, job: Job, result: Mapping[str, Any]) -> bool:
        """Ends a job well; False where another worker has it by now."""
        return self._end(job, JobStatus.COMPLETED, result=json.dumps(result), progress=1.0)

    def fail(self, job: Job, reason: str, *, again: bool = False) -> bool:
        """Ends a job that could not be made, or has it tried again while it may; False as `complete`."""
        if again and job.tries < MOST_TRIES:
            return self.hand_back(job, reason=reason)
        return self._end(job, JobStatus.FAILED, reason=reason)

    def hand_back(self, job: Job, reason: str | None = None) -> bool:
        """Lets others make a job. Without a reason the try does not count. False as `complete`."""
        values = {"status": JobStatus.QUEUED.value, "tries": job.tries - (reason is None), "reason": reason}
        with self._writing() as connection:
            update = self.table.update().where(self._held(job))
            return bool(connection.execute(update.values(token=None, lease_until=None, **values)).rowcount)

    def cancelled(self, job: Job) -> bool:
        """Ends a job that is not wanted any more, by its holder; False as `complete`."""
        return self._end(job, JobStatus.CANCELLED)

    def cancel(self, id: str) -> Job:
        """Wants a job no more: one that waits ends here, one that is made ends when its worker hears of it.

        Raises:
            UserError: There is none of that id.
        """
        columns = self.table.c
        with self._writing() as connection:
            waits = (columns.id == id) & (columns.status == JobStatus.QUEUED.value)
            connection.execute(self._change(waits, JobStatus.CANCELLED, self._now(connection)))
            runs = (columns.id == id) & (columns.status == JobStatus.RUNNING.value)
            connection.execute(self.table.update().where(runs).values(cancelled=True))
            return self._one(connection, id)

    def get(self, id: str) -> Job:
        """The job of an id. Raises UserError where there is none."""
        with database_errors(self.engine), self.engine.connect() as connection:
            return self._one(connection, id)

    def remove(self, id: str) -> Job:
        """Forgets a job that has ended. Raises UserError where there is none, or it has not ended."""
        with self._writing() as connection:
            job = self._one(connection, id)
            if job.status not in ENDED:
                raise UserError(Problem(id, f"is {job.status.value}; cancel it first"))
            connection.execute(self.table.delete().where(self.table.c.id == id))
            return job

    def jobs(self, *, limit: int = 100, after: int | None = None, newest_first: bool = False) -> list[Job]:
        """Jobs in the order of their numbers, those beyond `after`."""
        number = self.table.c.number
        query = self.table.select().order_by(number.desc() if newest_first else number).limit(limit)
        if after is not None:
            query = query.where(number < after if newest_first else number > after)
        with database_errors(self.engine), self.engine.connect() as connection:
            return [job_of(row) for row in connection.execute(query).mappings()]

    def counts(self) -> dict[JobStatus, int]:
        """How many jobs are in each state."""
        from sqlalchemy import func, select

        status = self.table.c.status
        with database_errors(self.engine), self.engine.connect() as connection:
            found = dict(connection.execute(select(status, func.count()).group_by(status)).tuples().all())
        return {one: found.get(one.value, 0) for one in JobStatus}

    def _writing(self) -> AbstractContextManager[Connection]:
        return writing(self.engine, alone=False)

    def _now(self, connection: Connection) -> float:
        """By the database's clock where hosts share it."""
        from sqlalchemy import func, select

        if self.engine.dialect.name == "sqlite":
            return time.time()
        return float(connection.execute(select(func.extract("epoch", func.clock_timestamp()))).scalar_one())

    def _known(self, connection: Connection, key: str | None) -> list[Job]:
        """The job of a key, unless it came to nothing: then the key is free for another one."""
        if key is None:
            return []
        given_up = self.table.c.status.in_([JobStatus.FAILED.value, JobStatus.CANCELLED.value])
        has_key = self.table.c.key == key
        connection.execute(self.table.update().where(has_key & given_up).values(key=None))
        return self._read(connection, has_key)

    def _add(
        self,
        connection: Connection,
        request: GenerationRequest,
        model: str,
        key: str | None,
        priority: int,
        parent: str | None,
    ) -> Job:
        values = {
            "id": f"video_{uuid.uuid4().hex}",
            "key": key,
            "model": model,
            "request": json.dumps(to_payload(request), ensure_ascii=False),
            "priority": priority,
            "status": JobStatus.QUEUED.value,
            "tries": 0,
            "cancelled": False,
            "progress": 0.0,
            "parent": parent,
            "created_at": self._now(connection),
        }
        insert = self.table.insert().values(values).returning(*self.table.c)
        return job_of(connection.execute(insert).mappings().one())

    def _first(self, wanted: ColumnElement[bool]) -> ScalarSelect[Any]:
        """The number of the first wanted job that no other transaction is about to take."""
        from sqlalchemy import select

        columns = self.table.c
        order = columns.priority.desc(), columns.number
        query = select(columns.number).where(wanted).order_by(*order).limit(1)
        return query.with_for_update(skip_locked=True).scalar_subquery()

    def _held(self, job: Job) -> ColumnElement[bool]:
        columns = self.table.c
        return (columns.id == job.id) & (columns.token == job.token)

    def _end(self, job: Job, status: JobStatus, **values: Any) -> bool:
        with self._writing() as connection:
            update = self._change(self._held(job), status, self._now(connection), **values)
            return bool(connection.execute(update).rowcount)

    def _change(self, which: ColumnElement[bool], status: JobStatus, now: float, **values: Any) -> Update:
        """Ends jobs: nobody holds them any more."""
        ended = {"status": status.value, "token": None, "lease_until": None, "finished_at": now, **values}
        return self.table.update().where(which).values(ended)

    def _read(self, connection: Connection, which: ColumnElement[bool]) -> list[Job]:
        return list(map(job_of, connection.execute(self.table.select().where(which)).mappings()))

    def _one(self, connection: Connection, id: str) -> Job:
        found = self._read(connection, self.table.c.id == id)
        if not found:
            raise UserError(Problem(id, "is no video of the queue"))
        return found[0]

    def _count(self, connection: Connection, status: JobStatus) -> int:
        from sqlalchemy import func, select

        query = select(func.count()).where(self.table.c.status == status.value)
        return int(connection.execute(query).scalar_one())


def open_queue(runs_dir: Path) -> Queue:
    """The queue of a runs folder: in the database that MM_RUNS_URL names, else in a file beside the index.

    Raises:
        UserError: The folder can't be made, the database can't be used, or it holds the queue of another
            version.
    """
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{runs_dir}: can't be written: {error.strerror or error}") from error
    engine, table = engine_of(runs_dir, FILE_NAME), queue_table()
    with writing(engine) as connection:
        make_table(connection, table)
    return Queue(engine, table)
