"""What every verb gets from its usage: its page, and a command line that holds what the usage says."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from mm_config.cli.scan import CommandLine, Option, whole_number
from mm_config.cli.verb import GROUP, MORE, Action, Usage, Verb, load_verb
from mm_config.schema.errors import UserError

COUNT = Option("--count", "How many.", "N", read=whole_number)
OUT = Option("--out", "Where to.", "PATH", missing="name a file")
LINES: list[CommandLine] = []


def verb(*words: str, options: tuple[Option, ...] = (COUNT,), **more: object) -> Verb:
    usage = Usage("mm try", "Try.", "Tries.", options, (), words, **{"takes": "files", **more})  # type: ignore[arg-type]
    return Verb(usage, lambda line: LINES.append(line) or 7)


def told(tried: Verb, *argv: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        tried.run(argv)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("words", "right", "wrong"),
    [
        (("SRC", "DST"), ["a b"], ["", "a", "a b c"]),
        (("[TARGET]",), ["", "a"], ["a b"]),
        (("RUN", "RUN", MORE), ["a b", "a b c d"], ["", "a"]),
        ((), [""], ["a"]),
    ],
)
def test_the_words_are_as_many_as_their_names(
    words: tuple[str, ...], right: list[str], wrong: list[str]
) -> None:
    for text in right:
        assert verb(*words).run(text.split()) == 7
        assert LINES.pop().words == tuple(text.split())
    for text in wrong:
        expected = f"expected {' '.join(words)}, got {text or 'none'} (usage: mm try)"
        assert told(verb(*words), *text.split()) == [expected]


def test_an_action_says_its_words_and_what_it_refuses() -> None:
    tried = verb(actions={"list": Action(), "show": Action(("RUN",), (COUNT,))}, default_action="list")
    for argv, words in (((), ("list",)), (("show", "a"), ("show", "a"))):
        assert tried.run(argv) == 7
        assert LINES.pop().words == words
    assert told(tried, "shw") == ["expected list or show, got 'shw'; did you mean show?"]
    assert told(tried, "show", "--count", "3") == [
        "--count: is no option of show",
        "expected show RUN, got show (usage: mm try)",
    ]


def test_options_are_read_and_all_mistakes_told() -> None:
    tried = verb(options=(COUNT, OUT))
    assert tried.run(["--count", "3", "--out=x"]) == 7
    line = LINES.pop()
    assert (line.value(COUNT), line.value(OUT), line.argv) == (3, "x", ("--count", "3", "--out=x"))
    assert told(tried, "--count", "x", "--cout", "y", "--spec.lr", "1", "--spec.x") == [
        "--count: expected a whole number of at least 1, got 'x'",
        "--out: is missing; name a file",
        "--cout: unknown flag; did you mean --count or --out?",
        "--spec.lr: no field of a spec can be changed here",
        "--spec.x: no field of a spec can be changed here",
    ]


def test_mistakes_in_options_wait_for_those_of_targets() -> None:
    assert verb("TARGET", takes="targets").run(["a", "--count", "x", "--spec.lr", "1"]) == 7
    line = LINES.pop()
    assert [problem.path for problem in line.problems] == ["--count"]
    assert not line.has(COUNT)


def test_the_page_is_printed_whatever_else_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert verb(options=(OUT,)).run(["a", "b", "--help"]) == 0
    page = capsys.readouterr().out
    assert page.startswith("usage: mm try\n\nTries.\n") and "--out PATH" in page
    assert not LINES


def test_an_entry_point_names_a_verb() -> None:
    with pytest.raises(UserError, match="mm old can't be loaded: json:dumps is no Verb"):
        load_verb(EntryPoint("old", "json:dumps", GROUP))
    with pytest.raises(UserError, match=r"mm moved can't be loaded: .*'nothing'; install its package anew"):
        load_verb(EntryPoint("moved", "json:nothing", GROUP))
    with pytest.raises(UserError, match="mm lost can't be loaded: No module named 'nowhere_at_all'"):
        load_verb(EntryPoint("lost", "nowhere_at_all:VERB", GROUP))
