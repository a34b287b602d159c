"""From a path or url to the source that it is."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import attrs

from mm_config.schema import Problem, UserError
from mm_data.index.listed import LeftOut, Listed, Source
from mm_data.index.sources.files import Files, LocalFiles, Located, RemoteFiles, place_of
from mm_data.index.sources.folders import MEDIA, beside
from mm_data.index.sources.musubi import listed_sets, read_toml
from mm_data.index.sources.rows import Columns, columns_of, listed_rows, unused
from mm_data.index.sources.shards import listed_shards
from mm_data.index.sources.tables import READERS, rows_of, suffix_of, text_of
from mm_data.remote import without_password

NO_ROOT = Path(os.devnull)
"""The root of what lies over the network: nothing is below it."""
TOML_BYTES = 2**20
LISTS = re.compile(r"(?:.*/)?(?:metadata\.(?:csv|tsv|json|jsonl|parquet)|manifest\.jsonl)")
"""Tables that are a folder's own: those of Hugging Face and DiffSynth, and ours."""
SAVED = "dataset_info.json"
SPLITS = frozenset(("train", "training", "test", "validation", "valid", "val", "dev", "eval"))


@attrs.frozen
class Reading:
    """How a source is read."""

    path_column: str | None = None
    """The column that names files; None finds it."""
    caption_column: str | None = None
    """The column that holds captions; None finds it."""
    roots: tuple[Path, ...] = ()
    """Folders outside of the source that clips may lie in, resolved."""
    remote: tuple[str, ...] = ()
    """What may be read over the network."""
    isolated: bool = False
    """Whether clips are measured in processes with limits."""


def open_source(source: str, reading: Reading) -> Source:
    """What a path or url is, by its name and by what lies in it.

    Raises:
        UserError: Nothing is there, or nothing that is known, or several things that could be meant.
    """
    try:
        return _opened(source, reading)
    except (ValueError, OSError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(Problem(without_password(source), str(error))) from error


def _opened(source: str, reading: Reading) -> Source:
    if "://" in source:
        folder, _, name = source.rpartition("/")
        if is_file(source):
            files: Files = RemoteFiles(folder, reading.remote)
            return _of_file(files, name, source, NO_ROOT, reading)
        files = RemoteFiles(source.rstrip("/"), reading.remote)
        return _of_folder(files, source, NO_ROOT, reading)
    if not source:
        raise UserError(Problem("SRC", "is empty; name a folder, a file or a url"))
    path = Path(source).expanduser().absolute()
    if not path.exists():
        raise UserError(Problem(source, "no such file or folder"))
    root = (path if path.is_dir() else path.parent).resolve()
    files = LocalFiles(root, reading.roots, reading.remote)
    if path.is_dir():
        return _of_folder(files, str(path), root, reading)
    return _of_file(files, path.name, str(path), root, reading)


def is_file(source: str) -> bool:
    """Whether a url is that of a file, by its ending."""
    return suffix_of(source) in (*READERS, ".tar", ".toml", ".txt")


def _of_file(files: Files, name: str, path: str, root: Path, reading: Reading) -> Source:
    columns = (reading.path_column, reading.caption_column)
    suffix = suffix_of(name)

    def source(kind: str, listed: Iterable[Listed | LeftOut], notes: Sequence[str] = ()) -> Source:
        return Source(kind, path, root, reading.roots, listed, notes=tuple(notes))

    if suffix in READERS:
        return source(f"a table ({suffix[1:]})", _table(files, name, reading), _unread(files, name, reading))
    if suffix == ".tar":
        return source("a tar shard", listed_shards(files, [name], *columns))
    if suffix == ".txt":
        return source("a list of folders and tables", _pairs(files, name, reading))
    if suffix == ".toml":
        with files.open(name) as file:
            asked = read_toml(text_of(file, path, TOML_BYTES), path)
        listed = listed_sets(asked, files, *columns)
        found = source("musubi-tuner's datasets", listed, asked.notes)
        return attrs.evolve(found, cutting=asked.cutting, spec_lines=asked.spec_lines)
    tables = ", ".join(READERS)
    expected = f"expected a folder, a table ({tables}), data.txt, .tar or .toml"
    raise UserError(Problem(path, f"can't be taken for clips by its name; {expected}"))


def _of_folder(files: Files, path: str, root: Path, reading: Reading) -> Source:
    names = list(files.names())
    if not names:
        raise UserError(Problem(path, "the folder is empty"))
    tops = {name.partition("/")[0] for name in names if "/" in name}
    if (splits := sorted(tops & SPLITS)) and len(splits) > 1:
        example = f"{path.rstrip('/')}/{splits[0]}"
        what = f"holds the splits {', '.join(splits)}; name one, such as {example}"
        raise UserError(Problem(path, what))
    columns = (reading.path_column, reading.caption_column)
    media = any(suffix_of(name) in MEDIA for name in names)
    lists = [name for name in names if LISTS.fullmatch(name)]
    shards = [name for name in names if suffix_of(name) == ".tar"]
    tables = [name for name in names if suffix_of(name) in (".parquet", ".arrow")]
    notes: Sequence[str] = ()
    if lists:
        folders = [name.rpartition("/")[0] for name in lists]
        if len(set(folders)) < len(folders):
            several = ", ".join(lists[:4])
            raise UserError(Problem(path, f"holds several tables; name one of {several}"))
        kind, notes = "a folder with its table", _unread(files, lists[0], reading)
        parts = [_table_below(files, name, reading) for name in lists]
        listed: Iterable[Listed | LeftOut] = chain.from_iterable(parts)
    elif shards and not media:
        kind, listed = "tar shards", listed_shards(files, shards, *columns)
    elif tables and not media:
        _require_whole(files, names)
        kind, notes = "tables of a dataset", _unread(files, tables[0], reading)
        listed = chain.from_iterable(_table(files, name, reading) for name in tables)
    elif media and not shards:
        kind, listed = "a folder of clips", beside(files)
    elif media:
        raise UserError(Problem(path, "holds clips and tar shards; name one of them"))
    else:
        found = ", ".join([name for name in names if suffix_of(name) in READERS][:4])
        hint = f"; name the table: {found}" if found else ""
        raise UserError(Problem(path, f"holds neither clips nor a list of them{hint}"))
    return Source(kind, path, root, reading.roots, listed, notes=tuple(notes))


def _table(files: Files, name: str, reading: Reading) -> Iterator[Listed | LeftOut]:
    where = place_of(files, name)
    columns = (reading.path_column, reading.caption_column)
    return listed_rows(rows_of(files, name), files, where, *columns)


def _table_below(files: Files, name: str, reading: Reading) -> Iterator[Listed | LeftOut]:
    """A folder's own table, whose paths start from that folder; their names from the whole source."""
    folder, _, own = name.rpartition("/")
    if not folder:
        return _table(files, name, reading)
    return (
        attrs.evolve(one, name=f"{folder}/{one.name}") for one in _table(files.below(folder), own, reading)
    )


def _unread(files: Files, name: str, reading: Reading) -> list[str]:
    """The columns of a table that nothing reads, as its first row has them; nothing where that is wrong."""
    try:
        row = next(rows_of(files, name), None)
        where = place_of(files, name)
        columns: Columns | None = row and columns_of(
            list(row.values), where, reading.path_column, reading.caption_column
        )
    except UserError:
        return []
    left = unused(row.values, columns) if row and columns else []
    return [f"columns that are not read: {', '.join(left)}"] if left else []


def _pairs(files: Files, name: str, reading: Reading) -> Iterator[Listed | LeftOut]:
    """`FOLDER,TABLE` lines, as MindSpeed-MM's data.txt has them: paths of the table start from the folder.

    Both are looked for beside the file first, then from the current folder, as MindSpeed-MM does.
    """
    where = place_of(files, name)
    try:
        with files.open(name) as file:
            lines = text_of(file, where).splitlines()
    except (ValueError, OSError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(Problem(where, f"can't be read: {error}")) from error
    problems: list[Problem] = []
    found: list[tuple[Files, Files, str]] = []
    near = (files, LocalFiles(Path.cwd().resolve(), reading.roots, reading.remote))
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        folder, comma, table = (part.strip() for part in line.partition(","))
        place = f"{where}:{number}"
        if not comma or suffix_of(table) not in READERS:
            problems.append(Problem(place, f"expected FOLDER,TABLE, got {line[:80]!r}"))
            continue
        try:
            below = next((one.below(folder) for one in near if _is_folder(one.below(folder))), None)
            holder = next((one for one in near if _is_file(one.located(table))), None)
        except ValueError as error:
            problems.append(Problem(place, str(error)))
            continue
        if below is None or holder is None:
            problems.append(Problem(place, f"no such {'folder' if below is None else 'table'}"))
        else:
            found.append((below, holder, table))
    if problems:
        raise UserError(problems)
    for below, holder, table in found:
        columns = (reading.path_column, reading.caption_column)
        yield from listed_rows(rows_of(holder, table), below, place_of(holder, table), *columns)


def _is_folder(files: Files) -> bool:
    return not isinstance(files, LocalFiles) or files.folder.is_dir()


def _is_file(located: Located) -> bool:
    return located.url is not None or located.path.is_file()


def _require_whole(files: Files, names: Sequence[str]) -> None:
    """Raises UserError where `datasets` saved rows that an index of indices picks and orders."""
    import json

    for name in names:
        if name.rpartition("/")[2] != "state.json":
            continue
        with files.open(name) as file:
            state = json.loads(text_of(file, name, TOML_BYTES))
        if isinstance(state, dict) and state.get("_indices_files"):
            where = place_of(files, name)
            raise UserError(
                Problem(where, "its rows are picked by indices; save it by flatten_indices() first")
            )
