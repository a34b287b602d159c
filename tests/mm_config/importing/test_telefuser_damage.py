"""TeleFuser's dumps with random damage: refused by file, line and key, or read as legal specs."""

from __future__ import annotations

import json
import random
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from mm_config import rules
from mm_config.importing.telefuser.importer import import_dump
from mm_config.schema.errors import UserError
from tests.mm_config.importing.telefuser_files import DATA, WAN22, edited

ODD = [None, True, -1, 0, 3, 10**30, 1e300, 0.5, "", "x", "cuda", "FP8", [], [1], ["a"], {}, {"a": 1}, [[]]]


def mutated(text: str, dice: random.Random) -> str:
    """A dump with a value or key exchanged, or with characters struck, doubled or exchanged."""
    if dice.random() < 0.6:
        root: Any = json.loads(text)
        for _ in range(dice.randint(1, 2)):
            at = root
            while True:
                keys: list[Any] = list(at) if isinstance(at, dict) else list(range(len(at)))
                key: Any = dice.choice(keys)
                if isinstance(at[key], (dict, list)) and at[key] and dice.random() < 0.9:
                    at = at[key]
                    continue
                break
            if isinstance(at, dict) and dice.random() < 0.3:
                value = at.pop(key)
                if dice.random() < 0.7:
                    at[dice.choice([key[:-1], f"{key}s", key.upper(), dice.choice(keys)])] = value
            else:
                at[key] = json.loads(json.dumps(dice.choice(ODD)))
        return json.dumps(root, indent=1)
    for _ in range(dice.randint(1, 3)):
        place = dice.randrange(len(text))
        middle = dice.choice(["", text[place] * 2, dice.choice('{}[],:"\\/0a-\n\x00\u00e9'), "..."])
        text = text[:place] + middle + text[place + 1 :]
    return text


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("telefuser_seed", 200),
        ("telefuser_wan22", 100),
        pytest.param("telefuser_seed", 3500, marks=pytest.mark.slow),
        pytest.param("telefuser_wan22", 1500, marks=pytest.mark.slow),
    ],
)
def test_mutated_dumps_are_told_by_file_line_and_key(name: str, count: int, tmp_path: Path) -> None:
    text = (DATA / f"{name}.json").read_text("utf-8")
    file = tmp_path / "dump.json"
    refused = 0
    for number in range(count):
        dump = mutated(text, random.Random(f"{name} {number}"))
        file.write_text(dump, "utf-8")
        try:
            spec, report = import_dump(file)
        except UserError as error:
            refused += 1
            for problem in error.problems:
                assert re.fullmatch(rf"{re.escape(str(file))}:\d+", problem.path), (number, problem)
                if _is_json(dump):
                    assert re.match(r"[\w.\[\]\"\\/:{},' -]+: ", problem.message), (number, problem)
        else:
            assert rules.problems(spec) == []
            assert list(report.lines("x.py"))
    assert count // 3 < refused < count


LAYER2 = "layer2_inference_config"
DIT, LOW = f"{LAYER2}.dit_high_config", f"{LAYER2}.dit_low_config"
DAMAGES: tuple[tuple[str, Any], ...] = (
    (f"{DIT}.torch_dtype", "int3"),
    (f"{DIT}.attention_config.attn_impl", "FLASH"),
    (f"{DIT}.parallel_config.sp_ulysses_degree", "two"),
    (f"{DIT}.quant_config", {"enabled": True, "quant_type": "FP9", "group_size": 32}),
    (f"{LOW}.torch_dtype", "float16"),
    (f"{LOW}.offload_config", 3),
    (f"{LOW}.attention_config.dropout", 0.5),
    (f"{LAYER2}.sample_solver", "mix-euler"),
    (f"{LAYER2}.vae_config.offload_config", {"offload_typ": "NO_CPU_OFFLOAD"}),
    ("layer1_model_definition.models.2.path", 7),
    ("version", "3.0"),
)


def lines_of(tmp_path: Path, *damages: tuple[str, Any]) -> set[str]:
    """The problems of a dump, without its lines, which move."""
    with pytest.raises(UserError) as caught:
        import_dump(edited(tmp_path, WAN22, *damages))
    return {problem.message for problem in caught.value.problems}


def test_two_damages_give_two_lines(tmp_path: Path) -> None:
    alone = {key: lines_of(tmp_path, (key, value)) for key, value in DAMAGES}
    assert all(len(lines) == 1 for lines in alone.values()), alone
    for first, second in combinations(DAMAGES, 2):
        told = lines_of(tmp_path, first, second)
        if {first[0], second[0]} == {f"{DIT}.torch_dtype", f"{LOW}.torch_dtype"}:
            # Of two networks' formats nothing says that they differ where one is none.
            assert told == alone[f"{DIT}.torch_dtype"]
        else:
            assert told == alone[first[0]] | alone[second[0]], (first, second)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
