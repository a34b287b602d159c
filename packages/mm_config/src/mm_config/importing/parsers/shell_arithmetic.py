"""Whole-number arithmetic as bash does it inside `$((...))`: + - * / % and parentheses."""

from __future__ import annotations

import re
from collections.abc import Callable

import attrs

from mm_config.schema.errors import UserError
from mm_config.stored.parsing import shown_key

_TOKEN = re.compile(r"[ \t\n]*(?:([0-9]\w*)|([A-Za-z_]\w*)|(\*\*|[-+*/%()]))", re.ASCII)
_MAX_DEPTH = 64
_LIMIT = 2**63


@attrs.frozen
class Number:
    """What an expression comes to."""

    value: int
    cut: bool
    """A division left a remainder, which was dropped as bash drops it."""


def evaluate(text: str, variable: Callable[[str], int]) -> Number:
    """The value of an arithmetic expression.

    A quotient is cut towards zero and a remainder has the sign of the dividend, as in C.

    Args:
        text: The expression, after `$A` and `${A}` were replaced.
        variable: Gives the value of a bare name, or raises a UserError.

    Raises:
        UserError: Another operator, text, a division by zero, more than 64 bits.
    """
    reader = _Reader(_tokens(text), variable)
    value = reader.sum(0)
    if reader.at < len(reader.tokens):
        raise UserError(f"the arithmetic can't go on with {shown_key(reader.tokens[reader.at])}")
    return Number(value, reader.cut)


def whole_number(text: str) -> int:
    """A decimal number as bash reads it in arithmetic.

    Raises:
        UserError: It is none, has more than 64 bits, or a leading zero would make it octal.
    """
    digits = text.strip(" \t\n")
    sign = -1 if digits.startswith("-") else 1
    digits = digits[1:] if digits[:1] in ("-", "+") else digits
    if not (digits.isascii() and digits.isdigit()):
        raise UserError(f"arithmetic needs whole numbers, got {shown_key(text)}")
    if len(digits) > 1 and digits.startswith("0"):
        raise UserError(f"bash reads {shown_key(text)} as octal; write it without the leading zero")
    if len(digits) > 19:
        raise UserError(f"{shown_key(text)} does not fit into the 64 bits of bash's numbers")
    return _fitting(sign * int(digits))


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    at, end = 0, len(text.rstrip(" \t\n"))
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            rest = text[at:].strip(" \t\n")
            raise UserError(
                f"arithmetic knows numbers, names, + - * / % and parentheses, got {shown_key(rest)}"
            )
        tokens.append(match[0].strip(" \t\n"))
        at = match.end()
    return tokens


def _fitting(value: int) -> int:
    if not -_LIMIT <= value < _LIMIT:
        raise UserError("the arithmetic does not fit into the 64 bits of bash's numbers")
    return value


class _Reader:
    """A place in the tokens; every method reads one level of the grammar from there."""

    def __init__(self, tokens: list[str], variable: Callable[[str], int]) -> None:
        self.tokens = tokens
        self.at = 0
        self.cut = False
        self._variable = variable

    def sum(self, depth: int) -> int:
        value = self._product(depth)
        while operator := self._take("+", "-"):
            right = self._product(depth)
            value = _fitting(value + right if operator == "+" else value - right)
        return value

    def _product(self, depth: int) -> int:
        value = self._signed(depth)
        while operator := self._take("*", "/", "%"):
            right = self._signed(depth)
            value = _fitting(value * right) if operator == "*" else self._divided(value, right, operator)
        return value

    def _divided(self, value: int, divisor: int, operator: str) -> int:
        if divisor == 0:
            raise UserError("the arithmetic divides by zero")
        quotient = abs(value) // abs(divisor) * (1 if (value < 0) == (divisor < 0) else -1)
        remainder = value - quotient * divisor
        if operator == "%":
            return remainder
        self.cut = self.cut or remainder != 0
        return _fitting(quotient)

    def _signed(self, depth: int) -> int:
        if depth > _MAX_DEPTH:
            raise UserError(f"the arithmetic is nested deeper than {_MAX_DEPTH} levels")
        if sign := self._take("+", "-"):
            value = self._signed(depth + 1)
            return value if sign == "+" else _fitting(-value)
        if self._take("("):
            value = self.sum(depth + 1)
            if not self._take(")"):
                raise UserError("the arithmetic lacks a closing parenthesis")
            return value
        return self._operand()

    def _operand(self) -> int:
        if self.at == len(self.tokens):
            raise UserError("the arithmetic lacks a number at its end" if self.tokens else "empty arithmetic")
        token = self.tokens[self.at]
        self.at += 1
        if token[0].isalpha() or token[0] == "_":
            return self._variable(token)
        return whole_number(token)

    def _take(self, *operators: str) -> str:
        if self.at < len(self.tokens) and self.tokens[self.at] in operators:
            self.at += 1
            return self.tokens[self.at - 1]
        return ""
