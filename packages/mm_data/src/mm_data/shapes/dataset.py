"""Renders a dataset of shapes into a folder once, and checks it before each later use."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av

from mm_config.console import progress
from mm_config.durable import sha256_of, size_and_sha256, staged_folder
from mm_config.schema import Problem, UserError, spec_hash
from mm_config.specs import ShapesSpec
from mm_config.stored import read_json
from mm_data.shapes.render import render
from mm_data.video.writing import write_mp4

WORKERS = 2
PROVENANCE_NAME = "provenance.json"


def render_dataset(spec: ShapesSpec, folder: Path) -> Path:
    """The folder of a rendered dataset: `folder/shapes-<hash>`, rendered where it isn't there.

    It holds `manifest.jsonl`, `clips/*.mp4` (H.264), and `provenance.json` with each file's size and sha256.
    Rendering happens in a temporary folder that is renamed at the end, so what is there is complete.

    Raises:
        UserError: Files of a dataset rendered earlier are missing or have other sizes, or the folder can't be
            written.
    """
    digest = spec_hash(spec)
    finished = folder / f"shapes-{digest[:12]}"
    if finished.exists():
        _check_sizes(finished)
        return finished
    try:
        with staged_folder(finished) as unfinished:
            _render_into(unfinished, spec, digest)
    except OSError as error:
        # Another process may have finished the same dataset meanwhile; then that one is used.
        if not finished.exists():
            where = str(error.filename or folder)
            message = f"rendered clips can't be written: {error.strerror}"
            raise UserError(Problem(where, message)) from error
    return finished


def verify(dataset: Path) -> list[str]:
    """What is wrong with a rendered dataset: each missing file and each file whose sha256 is another."""
    return [
        f"{name}: {'missing' if not (dataset / name).is_file() else 'its content changed'}"
        for name, file in _files(dataset).items()
        if not (dataset / name).is_file() or sha256_of(dataset / name) != file.get("sha256")
    ]


def _render_into(folder: Path, spec: ShapesSpec, digest: str) -> None:
    (folder / "clips").mkdir()
    of_each = range(spec.clips_per_caption)
    clips = [(shown, number) for shown in spec.shown for number in of_each]
    captions = [caption for caption in spec.captions for _ in of_each]
    names = [f"clips/{index:05d}.mp4" for index in range(len(clips))]

    def write(name: str, clip: tuple[str, int]) -> None:
        write_mp4(folder / name, render(spec, *clip), spec.fps, comment=f"mm {digest}")

    with (
        progress("render shapes", total=len(clips), unit="clips", every=128) as bar,
        ThreadPoolExecutor(WORKERS) as pool,
    ):
        for _ in pool.map(write, names, clips):
            bar.advance(1)
    lines = [
        json.dumps({"path": name, "caption": caption}) for name, caption in zip(names, captions, strict=True)
    ]
    (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    files = {name: size_and_sha256(folder / name) for name in ("manifest.jsonl", *names)}
    provenance = {
        "spec_hash": digest,
        "libraries": {name: ".".join(map(str, version)) for name, version in av.library_versions.items()},
        "files": files,
    }
    (folder / PROVENANCE_NAME).write_text(json.dumps(provenance, indent=1) + "\n", encoding="utf-8")


def _check_sizes(dataset: Path) -> None:
    def size(path: Path) -> int | None:
        return path.stat().st_size if path.is_file() else None

    changed = [name for name, file in _files(dataset).items() if size(dataset / name) != file.get("bytes")]
    if changed:
        message = f"{len(changed)} rendered files are missing or damaged, the first is {changed[0]}; remove "
        raise UserError(Problem(str(dataset), f"{message}the folder to render it again"))


def _files(dataset: Path) -> dict[str, Any]:
    provenance = dataset / PROVENANCE_NAME
    try:
        return read_json(provenance, {"files": {"": {"bytes": int, "sha256": str}}})["files"]
    except (UserError, KeyError) as error:
        message = "missing or damaged; remove the folder to render it again"
        raise UserError(Problem(str(provenance), message)) from error
