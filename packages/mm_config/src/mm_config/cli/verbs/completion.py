"""`mm completion`: the scripts that make bash and zsh ask `mm` what can stand at the cursor."""

from __future__ import annotations

import io
import re
import shlex
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout

from mm_config.cli.completing import candidates
from mm_config.cli.scan import CommandLine
from mm_config.cli.verb import Action, Usage, Verb
from mm_config.schema.errors import escaped

BASH = r"""# Completion of mm in bash: eval "$(mm completion bash)"
_mm() {
    local candidate
    COMPREPLY=()
    while IFS= read -r candidate; do
        COMPREPLY+=("$candidate")
    done < <("${1/#\~/$HOME}" _complete bash "${COMP_LINE:0:COMP_POINT}" "$COMP_WORDBREAKS" 2>/dev/null)
    # After a folder, a group of fields or an equals sign the word goes on.
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[/.=] ]]; then
        compopt -o nospace 2>/dev/null
    fi
    return 0
}
complete -o bashdefault -o default -F _mm mm
"""
ZSH = r"""#compdef mm
# Completion of mm in zsh: eval "$(mm completion zsh)"
_mm() {
    local line program="${(Q)words[1]/#\~/$HOME}"
    local -a typed ended shown_ended open shown_open
    typed=("${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}")
    for line in "${(@f)$("$program" _complete zsh "${(@)typed}" 2>/dev/null)}"; do
        # After a folder, a group of fields or an equals sign the word goes on.
        if [[ ${line%%$'\t'*} == *[/.=] ]]; then
            open+=("${line%%$'\t'*}")
            shown_open+=("${${line/$'\t'/  -- }[1,COLUMNS-1]}")
        elif [[ -n $line ]]; then
            ended+=("${line%%$'\t'*}")
            shown_ended+=("${${line/$'\t'/  -- }[1,COLUMNS-1]}")
        fi
    done
    if (( $#ended + $#open == 0 )); then
        _files
        return
    fi
    (( $#ended )) && compadd -l -d shown_ended -a ended
    (( $#open )) && compadd -l -d shown_open -S '' -a open
    return 0
}
if [[ $funcstack[1] == _mm ]]; then
    _mm "$@"
else
    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
    compdef _mm mm
fi
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH}
USAGE = Usage(
    "mm completion bash|zsh",
    "Print the script that completes mm's command lines in bash or zsh.",
    "Prints the script that makes TAB complete what follows mm in a shell: verbs, their flags and choices, "
    "experiment files, runs and hashes of the runs folder, and after a target `--spec.` the fields of that "
    "spec, their short names and the values of those that have a list of them.\n\n"
    "The first example is a line for ~/.bashrc, the third one for ~/.zshrc. The others install the script "
    "as a file, which spares new shells the call; open a new shell after them. bash reads that folder "
    "where the package bash-completion is installed.\n\n"
    "What follows `python experiments/FILE.py` can't be completed: shells complete by the command's name, "
    "which is python's there. `mm show FILE --spec.` and TAB lists the same fields.",
    (),
    (
        ('eval "$(mm completion bash)"', "in bash, for this shell"),
        ("mm completion bash > ~/.local/share/bash-completion/completions/mm", "in bash, for all new shells"),
        ('eval "$(mm completion zsh)"', "in zsh, for this shell"),
        ('mm completion zsh > "${fpath[1]}/_mm"', "in zsh, for all new shells"),
    ),
    takes="files",
    actions={shell: Action() for shell in SCRIPTS},
)


def print_script(line: CommandLine) -> int:
    """Prints the script of a shell."""
    sys.stdout.write(SCRIPTS[line.words[0]])
    return 0


def answer(argv: Sequence[str]) -> int:
    """Prints what can stand at the cursor, one candidate per line; nothing where that can't be told.

    Args:
        argv: `bash`, the line up to the cursor and the characters at which bash parts words; or `zsh` and
            the words after `mm`, unquoted, of which the last is being typed. zsh is told what each
            candidate means, behind a tab.
    """
    # Experiments are imported, and what they print or raise belongs into no command line.
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        try:
            lines = list(_for_bash(*argv[1:]) if argv[0] == "bash" else _for_zsh(argv[1:]))
        except (Exception, SystemExit):
            lines = []
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0


def _for_zsh(words: Sequence[str]) -> list[str]:
    return [f"{escaped(one.text)}\t{escaped(one.about)}".rstrip("\t") for one in candidates(words)]


def _for_bash(line: str, breaks: str) -> list[str]:
    words, in_quotes = _split(line)
    typed = words[-1]
    # bash parts `--format=ya` at the equals sign and replaces only what follows it.
    parts = "=:" if not in_quotes else ""
    kept = max((typed.rfind(mark) + 1 for mark in parts if mark in breaks), default=0)
    texts = [escaped(one.text[kept:]) for one in candidates(words[1:])]
    return texts if in_quotes else [_escaped(text) for text in texts]


def _split(line: str) -> tuple[list[str], bool]:
    """The words of a line that may end within one, and whether that one's quotes are open."""
    for closing in ("", '"', "'"):
        try:
            *words, last = shlex.split(f"{line}x{closing}")
        except ValueError:
            continue
        return [*words, last[:-1]], bool(closing)
    raise ValueError(line)


def _escaped(text: str) -> str:
    return re.sub(r"([^\w@%+=:,./~-])", r"\\\1", text)


VERB = Verb(USAGE, print_script)
