"""`mm queue` and `mm worker`: what is asked for is made once, whoever makes it and however workers end."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mm_config.cli.app import app
from mm_config.stored.mp4 import frames_digest
from mm_infer.jobs.items import read_item
from mm_infer.jobs.queue import open_queue
from mm_infer.jobs.queued import Job, JobStatus
from tests.mm_config.conftest import postgres_url as postgres_url
from tests.mm_infer.test_given_frames import image
from tests.mm_infer.test_ranks import alike

WORKER = (sys.executable, "-m", "mm_config", "worker", "spec.json", "--out", "made", "--lease", "3")


def ask(*lines: dict[str, Any], status: int = 0) -> None:
    Path("p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert app(["queue", "spec.json", "--prompts", "p.jsonl"]) == status


def work(*words: str) -> int:
    return app(["worker", "spec.json", "--out", "made", *words])


def jobs() -> list[Job]:
    return open_queue(Path("runs")).jobs(limit=1000)


def test_what_is_asked_for_is_made(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image(place / "frame.png")
    beyond_float = {"guidance_high_noise": 1e39, "guidance_low_noise": 1e39}
    lines = (
        {"prompt": "a", "seed": 1, "image": "frame.png"},
        {"prompt": "b", "seed": 2, "num_frames": 9},
        {"prompt": "too much", "seed": 3, **beyond_float},
    )
    ask(*lines)
    ask(*lines)  # Asked for twice is made once.
    assert work("--until-empty") == 0
    a, b, failed = jobs()
    assert (a.status, b.status, failed.status) == (
        JobStatus.COMPLETED,
        JobStatus.COMPLETED,
        JobStatus.FAILED,
    )
    assert failed.reason is not None and "finite" in failed.reason and failed.tries == 1
    assert a.result is not None and a.result["folder"] == str(place / "made" / a.id)
    image_beside = ("--image", "frame.png", "--out", "alone.mp4")
    assert app(["generate", "spec.json", "--prompt", "a", "--seed", "1", *image_beside]) == 0
    assert read_item(Path("made") / a.id)["video"]["frames"] == frames_digest(Path("alone.mp4"))
    # What failed may be asked for again; what is done stays done.
    ask(*lines)
    assert [job.status for job in jobs()][-1] is JobStatus.QUEUED and len(jobs()) == 4
    capsys.readouterr()
    assert app(["queue"]) == 0
    assert capsys.readouterr().out.startswith("queue: 2 completed, 1 failed, 1 queued\n")
    # A job asks of all lines at once what the workers have made.
    Path("p.jsonl").write_text("\n".join(map(json.dumps, lines[:2])))
    assert app(["generate", "spec.json", "--prompts", "p.jsonl", "--out", "made"]) == 0
    assert "2 of 2 videos are in made already" in capsys.readouterr().out


def test_what_a_lost_worker_had_made_is_not_made_again(place: Path) -> None:
    ask({"prompt": "a", "seed": 1})
    assert work("--until-empty") == 0
    (job,) = jobs()
    queue, folder = open_queue(Path("runs")), Path("made") / job.id
    made = (folder / "video.mp4").stat()
    # As if the worker had been killed between the folder and its word to the queue.
    with queue.engine.begin() as connection:
        lost = {"status": "running", "lease_until": 0.0, "token": "x", "result": None}
        connection.execute(queue.table.update().values(lost))
    assert work("--until-empty") == 0
    (again,) = jobs()
    assert again.status is JobStatus.COMPLETED and again.result == job.result
    assert (folder / "video.mp4").stat().st_mtime_ns == made.st_mtime_ns
    assert [path.name for path in Path("made").iterdir()] == [job.id]


def test_a_job_is_cancelled_while_it_is_denoised(place: Path) -> None:
    ask({"prompt": "long", "steps": 90_000}, {"prompt": "short"})
    (long, _) = jobs()

    def cancel() -> None:
        while open_queue(place / "runs").get(long.id).status is not JobStatus.RUNNING:
            time.sleep(0.05)
        assert app(["queue", "--cancel", long.id]) == 0

    other = threading.Thread(target=cancel)
    other.start()
    assert work("--until-empty", "--lease", "3") == 0
    other.join(60)
    assert [job.status for job in jobs()] == [JobStatus.CANCELLED, JobStatus.COMPLETED]
    assert not (Path("made") / long.id).exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("queue", "--cancel", "video_x"), "video_x: is no video of the queue"),
        (("queue", "--prompt", "x"), "--prompt: asks for videos; name the target that makes them"),
        (("queue", "spec.json"), "--prompt: is missing; say what the video shows, or give --prompts"),
        (("worker", "spec.json"), "--out: is missing; name the folder for the videos"),
        (
            ("worker", "spec.json", "--out", "m", "--lease", "1"),
            "--lease: expected a whole number of at least 3",
        ),
        (("queue", "spec.json", "--prompt", "x", "--frames", "6"), "request 0.num_frames: 6 frames are not"),
    ],
)
def test_mistakes(place: Path, words: Sequence[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app(list(words)) == 2
    told = capsys.readouterr().err
    assert told.startswith(line) and told.count("\n") == 1, told


@contextmanager
def workers(count: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes of `mm worker` that wait for more; whatever is left of them is killed."""
    running = [start() for _ in range(count)]
    try:
        yield running
    finally:
        for one in running:
            one.kill()
            one.wait(60)


def start() -> subprocess.Popen[str]:
    return subprocess.Popen(
        WORKER, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=alike(), text=True
    )


def check_all_made_once(count: int) -> None:
    done = jobs()
    assert [job.status for job in done] == [JobStatus.COMPLETED] * count
    folders = [path for path in Path("made").iterdir() if not path.name.startswith(".")]
    assert sorted(path.name for path in folders) == sorted(job.id for job in done)
    made_of = [read_item(folder)["made_of"] for folder in folders]
    assert len(set(made_of)) == count


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_jobs_survive_kills(place: Path, count: int) -> None:
    ask(*({"prompt": f"prompt {number}", "steps": 100} for number in range(50)))
    drawn, kills = random.Random(count), 0
    with workers(count) as running:
        deadline = time.monotonic() + 1500
        while any(job.status is not JobStatus.COMPLETED for job in jobs()):
            assert time.monotonic() < deadline
            time.sleep(drawn.uniform(3, 6) if kills < 20 else 0.5)
            if kills < 20:
                victim = drawn.randrange(count)
                running[victim].kill()
                running[victim].wait(60)
                running[victim], kills = start(), kills + 1
    assert kills == 20
    check_all_made_once(50)


@pytest.mark.slow
def test_two_workers_on_one_server_share_two_hundred(
    place: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MM_RUNS_URL", postgres_url)
    ask(*({"prompt": f"prompt {number}", "steps": 30} for number in range(200)))
    kills, killed_at = 0, time.monotonic()
    with workers(2) as running:
        deadline = time.monotonic() + 1800
        while any(job.status is not JobStatus.COMPLETED for job in jobs()):
            assert time.monotonic() < deadline
            time.sleep(0.5)
            if time.monotonic() - killed_at > 10:
                victim = kills % 2
                running[victim].kill()
                running[victim].wait(60)
                running[victim], kills, killed_at = start(), kills + 1, time.monotonic()
    assert kills > 3
    check_all_made_once(200)


@pytest.mark.slow
def test_a_worker_that_is_asked_to_stop_hands_back(place: Path) -> None:
    ask({"prompt": "long", "steps": 90_000})
    with workers(1) as (worker,):
        deadline = time.monotonic() + 120
        while jobs()[0].status is not JobStatus.RUNNING:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(1)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == -signal.SIGTERM  # As it would end without us, once the job is back.
    (job,) = jobs()
    assert job.status is JobStatus.QUEUED and job.tries == 0
