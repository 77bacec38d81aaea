"""Filter patterns of CloudWatch Logs, as far as subscriptions of this project need them.

Source: "Filter pattern syntax" of the Amazon CloudWatch Logs user guide. Known here: the empty pattern, terms that must
all occur (`ERROR "with spaces"`), and JSON patterns (`{ ($.a = "x*" || $.b.c >= 400) && $.d != "y" }`) of selectors
with dots, quoted text with `*` for any text, and numbers. A field that is missing matches no comparison, `!=` included
(unverified). Anything else is refused by name: a pattern that means something else here than in AWS would hide lines.
"""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

MAX_CHARACTERS: Final = 1024

Matcher = Callable[[str], bool]
_Test = Callable[[Any], bool]

_TERM: Final = re.compile(r'\s*(?:"([^"\\]+)"|(\w+))(?=\s|$)')
_TOKEN: Final = re.compile(
    r"\s*(?:(?P<sign>&&|\|\||!=|<=|>=|[=<>()])|(?P<selector>\$(?:\.[A-Za-z_][\w-]*)+)(?![\w.\[])"
    r'|"(?P<text>[^"\\]*)"|(?P<number>-?\d+(?:\.\d+)?)(?![\w.*]))'
)
_NUMERIC: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_MISSING: Final = object()


class PatternError(ValueError):
    """The text is no filter pattern, or one of a form that is not known here."""


def compile_pattern(text: str) -> Matcher:
    """A function that says whether a line (without its end) matches; raises `PatternError`."""
    if len(text) > MAX_CHARACTERS:
        raise PatternError(f"a filter pattern has at most {MAX_CHARACTERS} characters, not {len(text)}")
    stripped = text.strip()
    if not stripped:
        return lambda _line: True
    if stripped.startswith("{") and stripped.endswith("}"):
        return _json_matcher(_Parser(stripped[1:-1]).parse())
    terms = _terms(stripped)
    return lambda line: all(term in line for term in terms)


def _json_matcher(test: _Test) -> Matcher:
    decode = msgspec.json.Decoder().decode

    def matches(line: str) -> bool:
        if not line.lstrip().startswith("{"):
            return False
        try:
            return test(decode(line))
        except msgspec.DecodeError:
            return False

    return matches


def _terms(text: str) -> list[str]:
    terms, position = [], 0
    while position < len(text):
        match = _TERM.match(text, position)
        if match is None:
            raise PatternError(f"not known here: {text[position:].strip()!r}")
        terms.append(match[1] or match[2])
        position = match.end()
    return terms


class _Parser:
    """`or := and ("||" and)*`, `and := one ("&&" one)*`, `one := "(" or ")" | selector sign value`."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._next = 0

    def parse(self) -> _Test:
        test = self._or()
        if self._next < len(self._tokens):
            raise PatternError(f"not expected: {self._tokens[self._next][1]!r}")
        return test

    def _or(self) -> _Test:
        tests = [self._and()]
        while self._sign("||"):
            tests.append(self._and())
        return tests[0] if len(tests) == 1 else lambda document: any(test(document) for test in tests)

    def _and(self) -> _Test:
        tests = [self._one()]
        while self._sign("&&"):
            tests.append(self._one())
        return tests[0] if len(tests) == 1 else lambda document: all(test(document) for test in tests)

    def _one(self) -> _Test:
        if self._sign("("):
            test = self._or()
            if not self._sign(")"):
                raise PatternError("a parenthesis is not closed")
            return test
        path = self._take("selector").split(".")[1:]
        sign = self._take("sign")
        if sign not in _NUMERIC:
            raise PatternError(f"a comparison is expected, not {sign!r}")
        kind, value = self._token()
        if kind == "number":
            return _number_test(path, _NUMERIC[sign], float(value))
        if kind == "text" and sign in {"=", "!="}:
            return _text_test(path, value, negated=sign == "!=")
        raise PatternError(f"{sign} {value!r} is not known here")

    def _sign(self, sign: str) -> bool:
        if self._next < len(self._tokens) and self._tokens[self._next] == ("sign", sign):
            self._next += 1
            return True
        return False

    def _take(self, kind: str) -> str:
        found, text = self._token()
        if found != kind:
            raise PatternError(f"a {kind} is expected, not {text!r}")
        return text

    def _token(self) -> tuple[str, str]:
        if self._next == len(self._tokens):
            raise PatternError("it ends too early")
        self._next += 1
        return self._tokens[self._next - 1]


def _tokens(text: str) -> Sequence[tuple[str, str]]:
    tokens, position, text = [], 0, text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise PatternError(f"not known here: {text[position:].strip()!r}")
        tokens.append((match.lastgroup, match[match.lastgroup]))
        position = match.end()
    return tokens


def _text_test(path: Sequence[str], pattern: str, *, negated: bool) -> _Test:
    regex = re.compile(".*".join(re.escape(part) for part in pattern.split("*")), re.DOTALL)

    def test(document: Any) -> bool:
        value = _at(document, path)
        return isinstance(value, str) and (regex.fullmatch(value) is None) == negated

    return test


def _number_test(path: Sequence[str], compare: Callable[[float, float], bool], number: float) -> _Test:
    def test(document: Any) -> bool:
        value = _at(document, path)
        return isinstance(value, int | float) and not isinstance(value, bool) and compare(value, number)

    return test


def _at(document: Any, path: Sequence[str]) -> Any:
    for name in path:
        document = document.get(name, _MISSING) if isinstance(document, dict) else _MISSING
    return document
