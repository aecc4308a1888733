r"""The language that chooses nodes: `/^role::web/ and not env=stage`::

    or = and {"or" and} ;  and = not {"and" not} ;  not = {"not" | "!"} prim ;  prim = "(" or ")" | term ;
    term = name op value | class ;  op = "=" "==" "!=" "=~" "!~" "<" "<=" "=<" ">" ">=" "=>" ;
    class = word | regex | glob ;  value = word | quoted | regex | glob ;  regex = "/" {char | "\/"} "/" ;
    quoted = "…" | '…' with \ escapes

* Pure. Selectors are matched by who asks, on what nodes told about themselves; no node runs a stranger's expression.
* A text is bounded before it is read: its length, its terms, its depth. Neither reading nor matching goes back.
* An absent fact makes every comparison false, `!=` too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

from deploykit.errors import SelectorError, UsageError
from deploykit.fleet.expressions import (
    ClassTerm,
    Comparison,
    Conjunction,
    Disjunction,
    Expression,
    MatchDecision,
    Negation,
    Operator,
)
from deploykit.fleet.facts import NodeFacts
from deploykit.fleet.patterns import Exactly, Glob, Pattern, Regex
from deploykit.fleet.selectortokens import Token, error_at, shortened, tokens

#: Longest text of a selector, in bytes of UTF-8.
MAX_TEXT: Final = 4096
#: Most classes and comparisons in one selector.
MAX_TERMS: Final = 100
#: Most brackets and `not` around one term.
MAX_DEPTH: Final = 32
#: Longest name of a fact.
MAX_FACT_NAME: Final = 255

_OPERATORS: Final[dict[str, Operator]] = {
    "=": "=",
    "==": "=",
    "=~": "=",
    "!=": "!=",
    "!~": "!=",
    "<": "<",
    "<=": "<=",
    "=<": "<=",
    ">": ">",
    ">=": ">=",
    "=>": ">=",
}
#: Those that compare with one text, and with no pattern.
_ORDERINGS: Final = frozenset({"<", "<=", "=<", ">", ">=", "=>"})
#: Functions of another system's language, by which one sees that a selector was written for it.
_FOREIGN: Final = frozenset({"with", "fact", "include", "agent"})


@attrs.frozen(kw_only=True, slots=True)
class Selector:
    """A selector that was read. Equal ones mean the same, however they were written."""

    text: str = attrs.field(eq=False)
    expression: Expression

    @classmethod
    def parse(cls, text: str) -> Selector:
        """Return the selector that a text means.

        Raises:
            SelectorError: it is none; the error names the place and the way out.
        """
        parser = _Parser(text)
        return cls(text=text, expression=parser.whole())

    def matches(self, node: NodeFacts) -> bool:
        """Return whether a node is chosen."""
        return self.expression.holds(node)

    def decide(self, node: NodeFacts) -> MatchDecision:
        """Return whether a node is chosen, and which term settled it."""
        return self.expression.decide(node)

    def __str__(self) -> str:
        written = str(self.expression)
        return written if len(written.encode()) <= MAX_TEXT else self.text


def parse_comparison(text: str) -> Comparison:
    """Return what `-F` takes: one comparison, `env=live`.

    Raises:
        SelectorError: it is something else.
    """
    return _Parser(text).only_comparison()


def parse_pattern(text: str, what: str = "the name of a class") -> Pattern:
    """Return what `-C` and `-I` take: a name, a glob or a regular expression.

    Raises:
        SelectorError: it is something else.
    """
    return _Parser(text).only_name(what)


class _Parser:
    """Reads tokens from left to right, one ahead."""

    def __init__(self, text: str) -> None:
        self._text = text
        try:
            size = len(text.encode())
        except UnicodeEncodeError as error:
            raise error_at(text, error.start, "a selector is text, and this byte is not UTF-8") from None
        if size > MAX_TEXT:
            raise SelectorError(
                f"a selector of {size} bytes is over the limit of {MAX_TEXT}", "list the nodes in a file: --nodes FILE"
            )
        self._tokens = tokens(text)
        self._next = next(self._tokens)
        self._last: Token | None = None
        self._terms = 0
        self._depth = 0

    def whole(self) -> Expression:
        """Read a selector, and nothing after it."""
        found = self._disjunction()
        if self._next.kind != "end":
            raise self._not_joined()
        return found

    def _disjunction(self) -> Expression:
        return self._joined("or", self._conjunction, Disjunction)

    def only_comparison(self) -> Comparison:
        """Read one comparison, and nothing after it."""
        term = self._term()
        if isinstance(term, ClassTerm):
            raise self._error(
                self._next, f"expected an operator after {term}", f"as in {term}=VALUE; a class is -C {term}"
            )
        self._ended("give the option once for each comparison, or -S; a value with blanks stands in quotes")
        return term

    def only_name(self, what: str) -> Pattern:
        """Read a name, a glob or a regular expression, and nothing after it."""
        token = self._advance()
        if token.kind not in ("word", "glob", "regex", "keyword"):
            raise self._error(token, f"expected {what}, not {self._named(token)}")
        self._ended("give the option once for each name; -F takes comparisons, and -S whole selectors")
        return self._pattern(token)

    def _ended(self, remedy: str) -> None:
        if self._next.kind != "end":
            raise self._error(self._next, f"expected the end, not {self._named(self._next)}", remedy)

    def _conjunction(self) -> Expression:
        return self._joined("and", self._negation, Conjunction)

    def _joined(
        self, word: str, rule: Callable[[], Expression], made: Callable[[tuple[Expression, ...]], Expression]
    ) -> Expression:
        parts = [rule()]
        while self._next.kind == "keyword" and self._next.text == word:
            self._advance()
            parts.append(rule())
        return parts[0] if len(parts) == 1 else made(tuple(parts))

    def _negation(self) -> Expression:
        if self._next.kind == "!" or (self._next.kind == "keyword" and self._next.text == "not"):
            self._enter()
            part = self._negation()
            self._depth -= 1
            return Negation(part)
        return self._bracketed() if self._next.kind == "(" else self._term()

    def _bracketed(self) -> Expression:
        opened = self._enter()
        part = self._disjunction()
        if self._next.kind == "end":
            raise self._error(opened, "this bracket is not closed", "add )")
        if self._next.kind != ")":
            raise self._not_joined()
        self._advance()
        self._depth -= 1
        return part

    def _term(self) -> ClassTerm | Comparison:
        name = self._next
        if name.kind not in ("word", "glob", "regex"):
            raise self._no_term(name)
        self._advance()
        self._terms += 1
        if self._terms > MAX_TERMS:
            raise self._error(name, f"more than {MAX_TERMS} terms", "list the nodes in a file: --nodes FILE")
        if self._next.kind != "operator":
            return ClassTerm(self._pattern(name))
        if name.kind != "word":
            raise self._error(name, f"{shortened(name.shown)} is no name of a fact", "a fact is named by a plain word")
        if len(name.text) > MAX_FACT_NAME:
            raise self._error(name, f"a fact's name is longer than {MAX_FACT_NAME} characters")
        operator = self._advance()
        return Comparison(name.text, _OPERATORS[operator.text], self._value(operator))

    def _value(self, operator: Token) -> Pattern:
        value = self._next
        if value.kind not in ("word", "glob", "regex", "quoted"):
            quoted = f"write '{value.text}' for this text" if value.kind == "keyword" else "an empty text is ''"
            raise self._error(value, f"expected a value after {operator.text}, not {self._named(value)}", quoted)
        self._advance()
        if operator.text in ("=~", "!~") and value.kind != "regex":
            raise self._error(
                value, f"{operator.text} needs a regular expression", f"between slashes: {operator.text}/{value.text}/"
            )
        if operator.text in _ORDERINGS and value.kind in ("regex", "glob"):
            raise self._error(value, f"{operator.text} needs a number, a version or a text", "a text stands in quotes")
        return self._pattern(value)

    def _pattern(self, token: Token) -> Pattern:
        match token.kind:
            case "glob":
                return Glob(token.text)
            case "regex":
                if not token.text:
                    raise self._error(token, "an empty regular expression finds everything", "write /./ for this")
                try:
                    return Regex(token.text)
                except UsageError as error:
                    raise self._error(token, error.problem, error.remedy) from None
        return Exactly(token.text)

    def _enter(self) -> Token:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._error(self._next, f"more than {MAX_DEPTH} brackets and `not` inside each other")
        return self._advance()

    def _advance(self) -> Token:
        token = self._next
        if token.kind != "end":
            self._last, self._next = token, next(self._tokens)
        return token

    def _no_term(self, token: Token) -> SelectorError:
        """Return the error where a class or a comparison should begin."""
        remedy = ""
        if token.kind == "end" and self._last is None:
            remedy = "as in: nginx and env=live"
        elif token.kind == "keyword":
            remedy = f"a class of this name is /^{token.text}$/"
        elif token.kind == "quoted":
            remedy = "the name of a class stands without quotes"
        return self._error(token, f"expected a class or a comparison, not {self._named(token)}", remedy)

    def _not_joined(self) -> SelectorError:
        """Return the error where a term has ended and neither `and` nor `or` follows."""
        token, last = self._next, self._last
        remedy = ""
        if token.text.lower() in ("and", "or"):
            remedy = f"write `{token.text.lower()}`"
        elif last is not None and last.text.lower() == "not":
            remedy = "write `not`"
        elif token.kind == "(" and last is not None and last.text in _FOREIGN:
            remedy = "this looks like Choria's language; here it is: nginx and env=live"
        elif token.kind == ")":
            remedy = "no bracket is open"
        elif token.kind == "word":
            remedy = "join terms by `and` or `or`; a value with blanks stands in quotes"
        return self._error(token, f"expected `and`, `or` or the end, not {self._named(token)}", remedy)

    def _error(self, token: Token | None, problem: str, remedy: str = "") -> SelectorError:
        return error_at(self._text, token.position if token is not None else 0, problem, remedy)

    @staticmethod
    def _named(token: Token) -> str:
        return "the end" if token.kind == "end" else shortened(token.shown)
