"""The shape of the code in numbers: floors, circles, imports upward, lines.

    python scripts/structure.py [ROOT]

Floors are the files or folders of the longest chain of imports, among the folders of a storey and among the
files of a folder. Every import counts, those in functions and for type checkers too. Exit status: 1 where a
limit is broken, 0 otherwise.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Collection, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

STOREYS = {
    "value": ("durable", "schema", "specs", "families", "rules", "planning", "stored"),
    "machine": ("console", "options", "content", "npu", "runs", "running", "reproducing", "doctor"),
    "people": ("cli", "pages", "importing"),
}
"""The folders of mm_config, from the lowest storey up."""
APART = ("mm_config", "mm_config.__main__", "mm_config.interrupts")
MOST_FLOORS = 6
"""Among the folders of a storey, and among the files of a folder."""
MOST_LINES = 31_900
"""Of mm_config; docs/decisions.md, section 30, says how it moves."""
MOST_LINES_OF_A_FILE = 300
FOLDERS = ("packages", "experiments", "examples", "tests", "scripts", "benchmarks")

Graph = Mapping[str, Collection[str]]
"""What each module or folder imports."""


def main(root: Path) -> int:
    """Prints the numbers of a repository, and what breaks a limit."""
    broken = [*_storeys(imports_of(root / "packages/mm_config/src")), *_lines(root)]
    print("\n".join(broken) or "every limit is kept")
    return 1 if broken else 0


def _storeys(files: Graph) -> Iterator[str]:
    """Prints the numbers of mm_config's storeys and yields what breaks a limit."""
    folders: dict[str, set[str]] = {}
    for file, imported in files.items():
        folders.setdefault(folder_of(file), set()).update(map(folder_of, imported))
    height = {folder: index for index, names in enumerate(STOREYS.values()) for folder in names}
    yield from (f"mm_config/{folder} stands in no storey" for folder in folders if folder not in height)
    for storey, names in STOREYS.items():
        floors = floors_of(within(folders, names))
        print(f"{storey:<12} {floors:>7} floors among {', '.join(names)}")
        if floors > MOST_FLOORS:
            yield f"{storey} has {floors} floors, at most {MOST_FLOORS} are wanted"
    for folder in height:
        inside = within(files, [file for file in files if folder_of(file) == folder])
        floors = floors_of(inside)
        print(f"  {folder:<12} {floors:>5} floors among {len(inside)} files")
        if floors > MOST_FLOORS:
            yield f"the files of {folder} have {floors} floors, at most {MOST_FLOORS} are wanted"
    circles = [*circles_of(within(folders, height)), *circles_of(files)]
    print(f"circles      {len(circles):>7}")
    yield from (f"circle: {' -> '.join(circle)}" for circle in circles)
    upward = [
        f"upward: {file} imports {other}"
        for file, imported in files.items()
        for other in sorted(imported)
        if height.get(folder_of(other), 0) > height.get(folder_of(file), 0)
    ]
    print(f"upward       {len(upward):>7}")
    yield from upward


def _lines(root: Path) -> Iterator[str]:
    """Prints the lines of packages and the longest file, and yields what breaks a limit."""
    for package in sorted((root / "packages").iterdir()):
        lines = sum(map(lines_of, (package / "src").rglob("*.py")))
        print(f"{package.name:<12} {lines:>7,} lines")
        if package.name == "mm_config" and lines > MOST_LINES:
            yield f"mm_config has {lines:,} lines, at most {MOST_LINES:,} are wanted"
    found = [(lines_of(file), str(file.relative_to(root))) for file in _python_files(root)]
    longest, name = max(found)
    print(f"longest file {longest:>7,} lines, {name}")
    yield from (
        f"{name} has {lines} lines, at most {MOST_LINES_OF_A_FILE} are wanted"
        for lines, name in sorted(found, reverse=True)
        if lines > MOST_LINES_OF_A_FILE
    )


def imports_of(source: Path) -> dict[str, set[str]]:
    """The modules of mm_config that each of them imports; the package's own files stand apart."""
    files = {
        ".".join(file.relative_to(source).with_suffix("").parts).removesuffix(".__init__"): file
        for file in (source / "mm_config").rglob("*.py")
    }
    return {
        name: set(_imported(file, files)) - {name, *APART}
        for name, file in files.items()
        if name not in APART
    }


def _imported(file: Path, known: Collection[str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else str(node.module) for name in inside]
        else:
            continue
        yield from (name for name in names if name in known)


def folder_of(module: str) -> str:
    """The folder of mm_config that a module lies in."""
    return module.split(".")[1]


def within(graph: Graph, names: Collection[str]) -> dict[str, set[str]]:
    """The part of a graph that lies among some of its nodes."""
    return {name: set(graph[name]) & {*names} - {name} for name in names if name in graph}


def floors_of(graph: Graph) -> int:
    """The length of the longest chain of imports; 0 where some go in a circle."""
    if circles_of(graph):
        return 0
    floors: dict[str, int] = {}
    for name in TopologicalSorter(graph).static_order():
        floors[name] = 1 + max((floors[imported] for imported in graph[name]), default=0)
    return max(floors.values(), default=0)


def circles_of(graph: Graph) -> list[list[str]]:
    """Chains of imports that come back to where they began; cutting one import of each leaves none."""
    rest = {name: set(imported) for name, imported in graph.items()}
    found: list[list[str]] = []
    while True:
        try:
            TopologicalSorter(rest).prepare()
        except CycleError as error:
            imported, importer, *_ = error.args[1]
            found.append(error.args[1][::-1])
            rest[importer].discard(imported)
        else:
            return found


def lines_of(file: Path) -> int:
    """The lines of a file."""
    return file.read_bytes().count(b"\n")


def _python_files(root: Path) -> Iterator[Path]:
    for folder in FOLDERS:
        yield from (root / folder).rglob("*.py")


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1])))
