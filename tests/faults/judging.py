"""What must hold after a fault: seen in files and in what commands say, not by asking the code of mm."""

from __future__ import annotations

import errno
import hashlib
import json
import random
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import attrs
import av
from av.error import FFmpegError

from tests.faults.commands import Commands, Ended, Fault, Mode
from tests.faults.verbs import Verb

MOST_OF_A_KIND = 2
"""Calls of one name at places of one kind, such as the clips of a set, of which more would show the same."""
ERRORS = (errno.ENOSPC, errno.EIO)


@attrs.frozen
class Point:
    """One fault in one command."""

    verb: Verb
    fault: Fault
    call: str
    """The call, as `name path`."""

    def __str__(self) -> str:
        error = errno.errorcode.get(self.fault.error, "")
        fault = f"{self.fault.mode.name} {error} at call {self.fault.at}"
        rank = f" of rank {self.fault.rank}" if self.verb.ranks > 1 else ""
        return f"{self.verb.name}: {fault}{rank}, {self.call} where nothing failed"


@attrs.define
class Prepared:
    """A verb's folder before it runs, kept as `kept`, and what comes of it without a fault."""

    verb: Verb
    kept: str
    calls: tuple[tuple[str, ...], ...]
    """Those of each rank."""
    made: dict[str, str]


def prepare(commands: Commands, verb: Verb) -> Prepared:
    """Runs a verb without a fault, in the folder that it needs."""
    kept = f"before {verb.name}"
    commands.restore("empty")
    for argv in verb.before:
        ended = commands.run(argv)
        assert ended.status == 0, (argv, ended)
    if verb.killed_before is not None:
        commands.keep(kept)
        calls = commands.run(verb.killed_before).calls
        commands.restore(kept)
        staged = [at for at, call in enumerate(calls) if re.search(r"write \S+/step-0+3.tmp/model/", call)]
        commands.run(verb.killed_before, Fault(Mode.KILL, staged[0] + 3))
        commands.forget(kept)
    commands.keep(kept)
    calls = []
    for rank in range(verb.ranks):
        commands.restore(kept)
        whole = commands.run(verb.argv, Fault(rank=rank), verb.ranks)
        assert whole.status == 0, (verb.name, whole.err)
        assert whole.calls, f"{verb.name} changes nothing"
        calls.append(whole.calls)
    return Prepared(verb, kept, tuple(calls), made(commands.folder))


def points(prepared: Prepared, rng: random.Random) -> Iterator[Point]:
    """Every fault at every call of each rank; of calls that are alike, some."""
    for rank, calls in enumerate(prepared.calls):
        yield from _points(prepared, rank, calls, rng)


def kills(prepared: Prepared, rng: random.Random, number: int) -> Iterator[Point]:
    """So many kills, half of them in the middle of a write, each at a call that is drawn of all."""
    every = [(rank, at) for rank, calls in enumerate(prepared.calls) for at in range(1, len(calls) + 1)]
    writes = [(rank, at) for rank, at in every if prepared.calls[rank][at - 1].startswith("write ")]
    for index in range(number):
        rank, at = rng.choice(writes if index % 2 else every)
        fault = Fault(Mode.HALF_WRITE if index % 2 else Mode.KILL, at, rank=rank)
        yield Point(prepared.verb, fault, prepared.calls[rank][at - 1])


def hangs(prepared: Prepared, rng: random.Random, number: int) -> Iterator[Point]:
    """So many calls of a checkpoint that never return, drawn of those of all ranks."""
    every = [
        (rank, at, call)
        for rank, calls in enumerate(prepared.calls)
        for at, call in enumerate(calls, 1)
        if "/checkpoints/step-" in call
    ]
    for rank, at, call in rng.sample(every, number):
        yield Point(prepared.verb, Fault(Mode.HANG, at, rank=rank), call)


def _points(prepared: Prepared, rank: int, calls: tuple[str, ...], rng: random.Random) -> Iterator[Point]:
    alike: dict[str, list[int]] = {}
    for at, call in enumerate(calls, 1):
        alike.setdefault(_kind(call), []).append(at)
    for kind, places in alike.items():
        drawn = {places[0], *rng.sample(places, min(MOST_OF_A_KIND - 1, len(places)))}
        faults = [
            (Mode.KILL, 0),
            *((mode, error) for mode in (Mode.ONE_ERROR, Mode.ALL_ERRORS) for error in ERRORS),
        ]
        if kind.startswith("write "):
            faults.append((Mode.HALF_WRITE, 0))
        for at in sorted(drawn):
            for mode, error in faults:
                yield Point(prepared.verb, Fault(mode, at, error, rank), calls[at - 1])


def faults_found(commands: Commands, prepared: Prepared, point: Point) -> list[str]:
    """What is wrong after a fault: nothing where all is as promised."""
    commands.restore(prepared.kept)
    ended = commands.run(point.verb.argv, point.fault, point.verb.ranks)
    leaves = point.fault.mode in (Mode.KILL, Mode.HALF_WRITE, Mode.HANG)
    found = list(_badly_ended("the command", ended, killed=leaves, ranks=point.verb.ranks))
    where = f"at {ended.calls[point.fault.at - 1]}" if len(ended.calls) >= point.fault.at else "nowhere"
    found += _after(commands, prepared, point, ended)
    return [f"{line} ({where})" for line in found]


def _after(commands: Commands, prepared: Prepared, point: Point, ended: Ended) -> list[str]:
    listed = commands.run("mm.py runs list --json")
    found = list(_badly_ended("the list", listed))
    if listed.status:
        return [*found, f"unusable: the list says {listed.err[-300:]!r}"]
    states = {run["path"]: run["status"] for run in json.loads(listed.out)}
    found += _badly_listed(commands.folder / "runs", states)
    if ended.status != 0:
        unfinished = any(state in ("failed", "interrupted") for state in states.values())
        argv = point.verb.again if unfinished and point.verb.again else point.verb.argv
        if not unfinished:
            argv = argv.replace("--resume latest", "--if-needed")
        again = commands.run(argv, ranks=point.verb.ranks)
        found += _badly_ended("the next command", again)
        if again.status and not _says_that_it_is_there(again):
            return [*found, f"jammed: {argv!r} says {again.err[-300:]!r}"]
    after = made(commands.folder)
    differing = [name for name, digest in prepared.made.items() if after.get(name) != digest]
    return [*found, *(f"wrong: {name} is {after.get(name, 'missing')}" for name in differing)]


def made(folder: Path) -> dict[str, str]:
    """What weights and videos below a folder hold, by names without times and numbers of runs."""
    digests: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = re.sub(r"^(runs/[^/]+)/[^/]+", r"\1", path.relative_to(folder).as_posix())
        if any(part.startswith(".") for part in path.parts[len(folder.parts) :]) or not path.is_file():
            continue
        if (reads := {".safetensors": _tensors, ".mp4": _frames}.get(path.suffix)) is not None:
            try:
                digests[name] = reads(path)
            except (ValueError, LookupError, FFmpegError) as error:
                digests[name] = f"unreadable: {error}"
    return digests


def _tensors(path: Path) -> str:
    """What a safetensors file holds, in whatever order it holds it."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    digest = hashlib.sha256()
    for name in sorted(header.keys() - {"__metadata__"}):
        first, last = header[name]["data_offsets"]
        digest.update(f"{name} {header[name]['dtype']} {header[name]['shape']}".encode())
        digest.update(content[start + first : start + last])
    return digest.hexdigest()


def _frames(path: Path) -> str:
    with av.open(str(path)) as file:
        frames = [frame.to_ndarray(format="rgb24").tobytes() for frame in file.decode(video=0)]
    return hashlib.sha256(b"".join(frames)).hexdigest()


def _badly_ended(what: str, ended: Ended, *, killed: bool = False, ranks: int = 1) -> Iterator[str]:
    if ended.late:
        yield f"jammed: {what} did not end"
    if "Traceback" in ended.err or "Traceback" in ended.out:
        yield f"traceback: {what}: {ended.err[-600:]}"
    # Where a rank is missing the others end by what finds that out.
    if killed and ranks == 1 and ended.status != -signal.SIGKILL and ended.status not in (0, 2):
        yield f"{what} ended with {ended.status}"
    if not killed and ended.status not in (0, 2):
        yield f"{what} ended with {ended.status}: {ended.err[-300:]}"
    if ended.status == 2 and not ended.err.strip():
        yield f"{what} failed without a word"


def _badly_listed(runs: Path, states: dict[str, str]) -> Iterator[str]:
    folders = {spec.parent for spec in runs.glob("[!.]*/[!.]*/spec.json")}
    for folder in folders:
        name = folder.relative_to(runs).as_posix()
        expected = ("finished",) if (folder / "result.json").exists() else ("interrupted", "failed")
        if name not in states:
            yield f"unlisted: {name}"
        elif states[name] not in expected:
            yield f"wrong: {name} is listed as {states[name]}, expected {' or '.join(expected)}"
    for name in states:
        # A removal that can't tell the index says so, leaves the run as a stage, and is done by the next.
        if not (runs / name).is_dir() and not list(runs.glob(f"*/.{Path(name).name}.*")):
            yield f"wrong: {name} is listed and not there"


def _says_that_it_is_there(ended: Ended) -> bool:
    """Whether a command refuses since all that it makes is there, as after a fault at its very end."""
    return "exists" in ended.err


def _kind(call: str) -> str:
    """A call without what differs between stages, clips and steps."""
    alike = re.sub(r"\.[0-9a-f-]+\.tmp", ".tmp", re.sub(r"/[\w-]+\.mp4", "/#.mp4", call))
    return re.sub(r"[0-9a-f]{8,}|\d+", "#", alike)
