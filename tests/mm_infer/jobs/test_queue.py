"""The queue: accepted means kept, one holder at a time, whatever happens to workers; on both databases."""

from __future__ import annotations

import multiprocessing
import sqlite3
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

import pytest

from mm_config.schema import UserError
from mm_config.specs import GenerationRequest
from mm_infer.jobs.queue import FILE_NAME, MOST_TRIES, Queue, open_queue
from mm_infer.jobs.queued import Held, Job, JobStatus, QueueFull
from tests.mm_config.conftest import each_database as each_database
from tests.mm_config.conftest import postgres_url as postgres_url

MODEL, OTHER = "1" * 64, "2" * 64
LEASE = 60.0


@pytest.fixture
def queue(tmp_path: Path, each_database: str) -> Queue:
    return open_queue(tmp_path)


def ask(*prompts: str) -> list[GenerationRequest]:
    return [GenerationRequest(prompt=prompt, seed=7) for prompt in prompts]


def claimed(queue: Queue, worker: str = "w", lease: float = LEASE) -> Job:
    job = queue.claim(worker, [MODEL], lease)
    assert job is not None
    return job


def test_jobs_are_taken_by_priority_then_in_their_order(queue: Queue, tmp_path: Path) -> None:
    a, b = queue.submit(ask("a", "b"), MODEL)
    (urgent,) = queue.submit(ask("urgent"), MODEL, priority=5, parent=a.id)
    queue.submit(ask("of another model"), OTHER)
    # What was accepted is there for whoever opens the queue.
    assert [job.request.prompt for job in open_queue(tmp_path).jobs()] == [
        "a",
        "b",
        "urgent",
        "of another model",
    ]
    assert urgent.parent == a.id and a.request == ask("a")[0]
    assert [claimed(queue).id for _ in range(3)] == [urgent.id, a.id, b.id]
    assert queue.claim("w", [MODEL], LEASE) is None
    assert queue.counts()[JobStatus.RUNNING] == 3 and queue.counts()[JobStatus.QUEUED] == 1


def test_a_job_goes_through_its_states(queue: Queue) -> None:
    queue.submit(ask("a"), MODEL)
    job = claimed(queue)
    assert job.status is JobStatus.RUNNING and job.tries == 1 and job.worker == "w"
    assert queue.renew(job, LEASE, 0.5) is Held.STILL
    assert queue.get(job.id).progress == 0.5
    with pytest.raises(UserError, match="is running; cancel it first"):
        queue.remove(job.id)
    assert queue.complete(job, {"folder": "x"})
    done = queue.get(job.id)
    assert done.status is JobStatus.COMPLETED and done.result == {"folder": "x"} and done.progress == 1
    assert done.finished_at is not None and done.started_at is not None
    assert done.created_at <= done.started_at <= done.finished_at
    assert not queue.fail(job, "too late")
    queue.remove(job.id)
    with pytest.raises(UserError, match=f"{job.id}: is no video of the queue"):
        queue.get(job.id)


def test_a_job_whose_worker_is_lost_goes_to_another(queue: Queue) -> None:
    queue.submit(ask("a"), MODEL)
    lost = claimed(queue, "lost", lease=-1)
    again = claimed(queue, "other")
    assert (again.id, again.tries, again.worker) == (lost.id, 2, "other")
    assert queue.renew(lost, LEASE, 0.9) is Held.LOST
    assert not queue.complete(lost, {}) and not queue.hand_back(lost)
    assert queue.get(again.id).status is JobStatus.RUNNING
    assert queue.complete(again, {})


def test_a_job_that_loses_its_workers_fails_in_the_end(queue: Queue) -> None:
    queue.submit(ask("a"), MODEL)
    for _ in range(MOST_TRIES):
        job = claimed(queue, lease=-1)
    assert queue.claim("w", [MODEL], LEASE) is None
    failed = queue.get(job.id)
    assert failed.status is JobStatus.FAILED and failed.reason == f"{MOST_TRIES} workers were lost with it"


def test_what_fails_is_tried_again_as_often_as_it_may(queue: Queue) -> None:
    queue.submit(ask("a"), MODEL)
    for tries in range(1, MOST_TRIES + 1):
        job = claimed(queue)
        assert job.tries == tries
        assert queue.fail(job, f"try {tries}", again=True)
    assert queue.get(job.id).status is JobStatus.FAILED and queue.get(job.id).reason == f"try {MOST_TRIES}"
    queue.submit(ask("b"), MODEL)
    job = claimed(queue)
    assert queue.hand_back(job)  # Of a worker that stops as asked: it does not count.
    assert claimed(queue).tries == 1


def test_a_job_is_cancelled_while_it_waits_and_while_it_is_made(queue: Queue) -> None:
    waits, runs, gone = queue.submit(ask("a", "b", "c"), MODEL)
    assert queue.cancel(waits.id).status is JobStatus.CANCELLED
    job = claimed(queue)
    assert job.id == runs.id
    assert queue.cancel(runs.id).status is JobStatus.RUNNING
    assert queue.renew(job, LEASE, 0.1) is Held.CANCELLED
    assert queue.cancelled(job) and queue.get(runs.id).status is JobStatus.CANCELLED
    # Of a lost worker: nobody takes it up.
    claimed(queue, lease=-1)
    queue.cancel(gone.id)
    assert queue.claim("w", [MODEL], LEASE) is None
    assert queue.get(gone.id).status is JobStatus.CANCELLED


def test_a_key_is_one_job_and_a_full_queue_takes_none(queue: Queue) -> None:
    (a,) = queue.submit(ask("a"), MODEL, keys=["k"])
    (same,) = queue.submit(ask("a"), MODEL, keys=["k"])
    assert same.id == a.id
    queue.submit(ask("b"), MODEL, most_waiting=2)
    with pytest.raises(QueueFull, match="2 videos wait already"):
        queue.submit(ask("c"), MODEL, most_waiting=2)
    assert [job.request.prompt for job in queue.jobs()] == ["a", "b"]
    assert queue.submit(ask("a"), MODEL, keys=["k"], most_waiting=2)[0].id == a.id


def test_jobs_are_listed_in_parts(queue: Queue) -> None:
    jobs = queue.submit(ask(*"abcde"), MODEL)
    newest = queue.jobs(limit=2, newest_first=True)
    assert [job.request.prompt for job in newest] == ["e", "d"]
    assert [
        job.request.prompt for job in queue.jobs(limit=2, after=newest[-1].number, newest_first=True)
    ] == [
        "c",
        "b",
    ]
    assert [job.id for job in queue.jobs(after=jobs[3].number)] == [jobs[4].id]


def _work(runs_dir: Path, name: str, both: Barrier) -> None:
    queue = open_queue(runs_dir)
    both.wait(60)
    while (job := queue.claim(name, [MODEL], LEASE)) is not None:
        time.sleep(0.01)
        assert queue.complete(job, {"by": name})


def test_workers_share_jobs_each_made_once(queue: Queue, tmp_path: Path) -> None:
    queue.submit(ask(*(f"prompt {number}" for number in range(60))), MODEL)
    context = multiprocessing.get_context("fork")
    both = context.Barrier(2)
    workers = [context.Process(target=_work, args=(tmp_path, name, both)) for name in ("one", "two")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    jobs = queue.jobs()
    assert {job.status for job in jobs} == {JobStatus.COMPLETED} and {job.tries for job in jobs} == {1}
    assert {(job.result or {})["by"] for job in jobs} == {"one", "two"}


def test_a_crowd_submits_the_same_once(queue: Queue) -> None:
    found: SimpleQueue[str] = SimpleQueue()

    def submit() -> None:
        found.put(queue.submit(ask("a"), MODEL, keys=["k"])[0].id)

    crowd = [Thread(target=submit) for _ in range(8)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join(60)
    assert found.qsize() == 8 and len({found.get() for _ in crowd}) == len(queue.jobs()) == 1


def test_a_queue_of_another_version_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / FILE_NAME) as other:
        other.execute("CREATE TABLE queue_v9 (id TEXT)")
    with pytest.raises(
        UserError, match=r"queue: is of another version \(queue_v9, this one reads queue_v1\)"
    ):
        open_queue(tmp_path)


def test_times_are_those_of_now(queue: Queue) -> None:
    before = time.time()
    (job,) = queue.submit(ask("a"), MODEL)
    assert before - 5 < job.created_at < time.time() + 5
