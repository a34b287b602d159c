"""Text to plain data: strict JSON, and YAML with the scalars of YAML 1.2's core schema.

Keys given twice, keys that are no strings, lone surrogates and YAML's tags, anchors and merges are
problems, with the path or the line where they stand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import cache
from typing import Any

from mm_config.schema.errors import Problem, UserError
from mm_config.schema.ranges import is_unicode
from mm_config.schema.types import in_error, is_dict, is_list

MAX_DEPTH = 64
"""Levels of lists and mappings; a spec that holds three training specs has about twenty."""

# YAML 1.2, section 10.3.2 (core schema), in the order in which they are tried.
_CORE_SCALARS = (
    ("null", re.compile(r"^(?:null|Null|NULL|~|)$"), ["n", "N", "~", ""]),
    ("bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("int", re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$"), list("-+0123456789")),
    (
        "float",
        re.compile(
            r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        list("-+.0123456789"),
    ),
)
_YAML = "tag:yaml.org,2002:"
_LONGEST_KEY = 80
_MOST_NODES = 100_000
_MOST_DIGITS = 4300
"""Python reads no more of a decimal number, but of others."""


class _Pairs(list[tuple[Any, Any]]):
    """A mapping as it was written: keys may come twice."""


def parse_json(text: str) -> Any:
    """The data of a JSON text, for `checked`.

    Raises:
        UserError: The text is no JSON.
    """
    try:
        return json.loads(text, object_pairs_hook=_Pairs)
    except json.JSONDecodeError as error:
        raise UserError(f"line {error.lineno}, column {error.colno}: no JSON: {error.msg}") from None
    except RecursionError:
        raise UserError(f"nested deeper than {MAX_DEPTH} levels") from None
    except ValueError:
        raise UserError("holds a number with more digits than can be read") from None


def parse_yaml(text: str, *, aliases: bool = False) -> Any:
    """The data of one YAML document, for `checked`.

    Args:
        text: The document.
        aliases: Whether aliases and merges are written out, see `written_out`.

    Raises:
        UserError: The text is no YAML, or uses tags, or anchors or merges without `aliases`.
    """
    import yaml

    try:
        loader = core_loader()(text)
        node = loader.get_single_node()
        if node is None:
            return None
        return _yaml_tree(written_out(node) if aliases else node, set())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise UserError(f"{where}no YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise UserError(f"no YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise UserError(f"nested deeper than {MAX_DEPTH} levels") from None


def written_out(node: Any) -> Any:
    """A tree of PyYAML's nodes with each alias in full, and with what `<<` merges into its mapping.

    Raises:
        UserError: The aliases make far more of the document than anybody writes, or never end.
    """
    left = iter(range(_MOST_NODES))

    def copied(node: Any) -> Any:
        if next(left, None) is None:
            message = f"its aliases come to more than {_MOST_NODES:,} values"
            raise UserError(f"line {node.start_mark.line + 1}: {message}")
        value = node.value
        if node.id == "sequence":
            value = [copied(item) for item in value]
        elif node.id == "mapping":
            pairs = [(copied(key), copied(below)) for key, below in value]
            value = [pair for pair in pairs if pair[0].value != "<<"]
            own = {key.value for key, _ in value if key.id == "scalar"}
            for _, below in (pair for pair in pairs if pair[0].value == "<<"):
                for merged in below.value if below.id == "sequence" else [below]:
                    if merged.id != "mapping":
                        message = "<< merges mappings alone"
                        raise UserError(f"line {merged.start_mark.line + 1}: {message}")
                    more = [pair for pair in merged.value if pair[0].value not in own]
                    own |= {key.value for key, _ in more if key.id == "scalar"}
                    value += more
        return type(node)(node.tag, value, node.start_mark, node.end_mark)

    return copied(node)


@cache
def core_loader() -> Any:
    """PyYAML's loader with the core schema's scalars in place of YAML 1.1's."""
    import yaml

    class CoreLoader(yaml.SafeLoader):
        pass

    CoreLoader.yaml_implicit_resolvers = {}
    _add_core_scalars(CoreLoader)
    return CoreLoader


@cache
def core_dumper() -> Any:
    """PyYAML's dumper; it quotes strings that any of YAML 1.1 and 1.2 would read as something else."""
    import yaml

    class CoreDumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    CoreDumper.yaml_implicit_resolvers = {
        k: list(v) for k, v in yaml.SafeDumper.yaml_implicit_resolvers.items()
    }
    _add_core_scalars(CoreDumper)
    CoreDumper.add_representer(str, _represent_text)
    return CoreDumper


def _represent_text(dumper: Any, text: str) -> Any:
    # PyYAML folds the line breaks of Unicode into spaces unless the text stands in double quotes.
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar(_YAML + "str", text, style)


def _add_core_scalars(cls: Any) -> None:
    for name, pattern, first_characters in _CORE_SCALARS:
        cls.add_implicit_resolver(_YAML + name, pattern, first_characters)


def _yaml_tree(node: Any, seen: set[int]) -> Any:
    if id(node) in seen:
        raise UserError(f"line {node.start_mark.line + 1}: anchors and aliases are not allowed")
    seen.add(id(node))
    kind = node.tag.removeprefix(_YAML)
    if node.id == "mapping" and kind == "map":
        return _Pairs((_yaml_tree(key, seen), _yaml_tree(value, seen)) for key, value in node.value)
    if node.id == "sequence" and kind == "seq":
        return [_yaml_tree(item, seen) for item in node.value]
    if node.id == "scalar" and kind in ("null", "bool", "int", "float", "str"):
        return _yaml_scalar(kind, node)
    raise UserError(f"line {node.start_mark.line + 1}: the tag {node.tag} is not allowed")


def _yaml_scalar(kind: str, node: Any) -> Any:
    text: str = node.value
    if kind == "str":
        return text
    patterns = {name: pattern for name, pattern, _ in _CORE_SCALARS}
    if not patterns[kind].match(text):
        raise UserError(f"line {node.start_mark.line + 1}: {in_error(text)} is no {kind}")
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "float":
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    if len(text) > _MOST_DIGITS:
        raise UserError(f"line {node.start_mark.line + 1}: a number with more digits than can be read")
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


def checked(tree: Any) -> tuple[Any, list[Problem]]:
    """Plain data from parsed data whose mappings, texts and depth are not known to be sound.

    Returns:
        None, bool, int, float, str, list and dict, and what is wrong with the data: all keys given
        twice (the last is kept) or that are no strings (left out), lone surrogates, too deep nesting.
    """
    problems: list[Problem] = []
    return _plain(tree, "", 0, problems), problems


def _plain(tree: Any, path: str, depth: int, problems: list[Problem]) -> Any:
    if depth > MAX_DEPTH:
        if all("nested deeper" not in problem.message for problem in problems):
            problems.append(Problem(path, f"nested deeper than {MAX_DEPTH} levels"))
        return None
    if isinstance(tree, _Pairs):
        return _mapping(tree, path, depth, problems)
    if is_dict(tree):
        return _mapping(tree.items(), path, depth, problems)
    if is_list(tree):
        return [_plain(item, _below(path, index), depth + 1, problems) for index, item in enumerate(tree)]
    if isinstance(tree, str) and not is_unicode(tree):
        problems.append(Problem(path, f"holds a lone surrogate, which is no Unicode text: {in_error(tree)}"))
    return tree


def _mapping(
    pairs: Iterable[tuple[Any, Any]], path: str, depth: int, problems: list[Problem]
) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for key, value in pairs:
        if not isinstance(key, str):
            hint = "; write the key '~' in quotes" if key is None else ""
            problems.append(Problem(path, f"a key must be a string, got {in_error(key)}{hint}"))
            continue
        if not is_unicode(key):
            problems.append(Problem(path, f"the key {shown_key(key)} holds a lone surrogate"))
            continue
        where = _below(path, key)
        if key in plain:
            problems.append(Problem(where, "the key is given twice"))
        plain[key] = _plain(value, where, depth + 1, problems)
    return plain


def _below(path: str, name: str | int) -> str:
    return f"{path}.{shown_key(name)}" if path else shown_key(name)


def shown_key(key: str | int) -> str:
    """A key as a path shows it: as it is where it looks like a name, else escaped, in quotes and cut."""
    text = str(key)
    if len(text) <= _LONGEST_KEY and text.isprintable() and text.strip() == text != "":
        return text
    escaped = ascii(text[:_LONGEST_KEY])
    return escaped if len(text) <= _LONGEST_KEY else f"{escaped}..."
