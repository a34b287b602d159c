"""What source code may not say about devices, found in its syntax tree.

Each rule guards against something that works on the machine where it is written and fails, or is silently
wrong, on another kind of device.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("packages", "examples", "experiments", "benchmarks", "scripts")
DEVICE_CODE = (
    "packages/mm_models/src/mm_models/ops/",
    "packages/mm_models/src/mm_models/device.py",
    "packages/mm_models/src/mm_models/device_profiler.py",
)
"""Where code may be of one kind of device."""

PACKAGES = "packages/"
KINDS = ("cuda", "npu")
HALF = ("half", "float16")


def sources() -> Iterator[tuple[str, str]]:
    """Each source file's path from the root, and its text."""
    for folder in FOLDERS:
        for file in sorted((ROOT / folder).rglob("*.py")):
            yield file.relative_to(ROOT).as_posix(), file.read_text("utf-8")


def broken_rules(path: str, source: str) -> list[str]:
    """`path:line: what is wrong`, for each place that breaks a rule."""
    tree = ast.parse(source)
    of_a_device = path.startswith(DEVICE_CODE)
    forms = _imported_forms(tree)
    return [
        f"{path}:{getattr(node, 'lineno', 0)}: {problem}"
        for node in ast.walk(tree)
        for problem in (
            *_everywhere(node, path),
            *(() if of_a_device else _elsewhere(node, forms)),
            *(_branches(node) if path.startswith(PACKAGES) and not of_a_device else ()),
        )
    ]


def _everywhere(node: ast.AST, path: str) -> Iterator[str]:
    if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("torch"):
        if any(alias.name == "gelu" for alias in node.names):
            yield "import of gelu, whose form would not be checked: call F.gelu"
        return
    if not isinstance(node, ast.Call):
        return
    name, given = _name(node.func), {keyword.arg: keyword.value for keyword in node.keywords}
    if name == "autocast":
        if "dtype" not in given:
            yield "autocast without dtype, which is float16 on an NPU"
        elif _name(given["dtype"]) in HALF:
            yield "autocast to float16"
    # The module takes the form by position too; a bare `gelu` is somebody's own name for such a module.
    forms = [given.get("approximate"), *(node.args if name == "GELU" else ())]
    is_tanh = any(isinstance(form, ast.Constant) and form.value == "tanh" for form in forms)
    is_torchs = name == "GELU" or (name == "gelu" and isinstance(node.func, ast.Attribute))
    if is_torchs and not is_tanh and not path.endswith("/ops/gelu.py"):
        yield "GELU that is not of the tanh form: ops.gelu.exact is exact on every device"
    if name in ("view_as_complex", "polar"):
        yield "complex numbers, which an NPU computes on its slow processor"


def _elsewhere(node: ast.AST, forms: set[str]) -> Iterator[str]:
    if isinstance(node, ast.Attribute) and node.attr in KINDS and _name(node.value) == "torch":
        yield f"torch.{node.attr} outside ops and the device module"
    if isinstance(node, ast.ImportFrom | ast.Import):
        names = [alias.name for alias in node.names]
        modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else names
        for module in modules:
            if module.startswith(("torch.cuda", "torch.npu", "torch_npu")):
                yield f"import of {module} outside ops and the device module"
        if modules == ["torch"] and (kinds := set(names) & set(KINDS)):
            yield f"import of torch.{kinds.pop()} outside ops and the device module"
    if not isinstance(node, ast.Call):
        return
    called = node.func
    if isinstance(called, ast.Attribute) and called.attr in KINDS and _name(called.value) not in forms:
        yield f".{called.attr}() moves to a kind of device"
    places = [keyword.value for keyword in node.keywords if keyword.arg in ("device", "device_type")]
    if _name(called) in ("device", "to", "autocast"):
        places += node.args[:1]
    for place in places:
        if isinstance(place, ast.Constant) and str(place.value).partition(":")[0] in KINDS:
            yield f"{place.value!r} named as the device"


def _branches(node: ast.AST) -> Iterator[str]:
    """Decisions by the kind of accelerator; that the CPU is none may be asked anywhere."""
    if isinstance(node, ast.Compare) and _name(node.left) == "type":
        for constant in (one for side in node.comparators for one in ast.walk(side)):
            if isinstance(constant, ast.Constant) and constant.value in KINDS:
                yield f"a decision by {constant.value!r} outside ops and the device module"


def _imported_forms(tree: ast.AST) -> set[str]:
    """Names of modules of `mm_models.ops`, whose functions may be called `npu`."""
    return {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "mm_models.ops"
        for alias in node.names
    }


def _name(node: ast.AST) -> str:
    """The last part of a name: `autocast` of `torch.amp.autocast`."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
