"""Cut prototxt and .proto text into tokens, each with its place in the file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from port.errors import PrototxtError

# The last two alternatives make every match succeed: no backtracking on hostile text.
_PATTERN = r"""[ \t\r\n\f\v]*(?:%s[ \t\r\n\f\v]*)*(?:
  (?P<name>[A-Za-z_][A-Za-z0-9_]*)
| (?P<number>\.?[0-9][A-Za-z0-9_.]*(?:(?<=[eE])[+-][A-Za-z0-9_.]*)*)
| (?P<string>"[^"\\\n]*(?:\\.[^"\\\n]*)*"|'[^'\\\n]*(?:\\.[^'\\\n]*)*')
| (?P<symbol>[][{}<>():;,=.-])
| (?P<end>\Z)
| (?P<bad>.)
)"""
PROTOTXT_TOKENS = re.compile(_PATTERN % r"\#[^\n]*(?:\n|\Z)", re.VERBOSE | re.DOTALL)
PROTO_TOKENS = re.compile(_PATTERN % r"//[^\n]*(?:\n|\Z)", re.VERBOSE | re.DOTALL)

LONGEST_SHOWN = 40  # characters of a token in a message


class Token(NamedTuple):
    kind: str  # name, number, string, symbol, or end
    text: str
    at: int  # offset in characters


class Scanner:
    """The tokens of one text, one ahead: ``token`` is the next one, not yet taken.

    where: the file's name, for messages. Raises PrototxtError for a character that
    belongs to no token.
    """

    def __init__(self, text: str, where: str, pattern: re.Pattern[str] = PROTOTXT_TOKENS) -> None:
        self.text = text
        self.where = where
        self._tokens = self._scan(pattern)
        self.token = next(self._tokens)

    def _scan(self, pattern: re.Pattern[str]) -> Iterator[Token]:
        for match in pattern.finditer(self.text):
            kind = match.lastgroup or "bad"
            token = Token(kind, match[kind], match.start(kind))
            if kind == "bad":
                raise self.error(self._why_bad(token.text), token.at)
            yield token
            if kind == "end":
                return

    @staticmethod
    def _why_bad(character: str) -> str:
        if character in "\"'":
            return "a string that is not closed on its line"
        return f"unexpected character {character!r}"

    def error(self, message: str, at: int | None = None) -> PrototxtError:
        """An error that names file, line and column (from 1) of offset ``at``, or of ``token``."""
        offset = self.token.at if at is None else at
        line = self.text.count("\n", 0, offset) + 1
        column = offset - self.text.rfind("\n", 0, offset)
        return PrototxtError(f"{self.where}:{line}:{column}: {message}")

    def take(self) -> Token:
        """Return ``token`` and move on; at the end of the text it stays there."""
        taken = self.token
        if taken.kind != "end":
            self.token = next(self._tokens)
        return taken

    def take_if(self, *texts: str) -> bool:
        """Take the next token if it is one of these symbols or words."""
        if self.token.text not in texts or self.token.kind not in ("symbol", "name"):
            return False
        self.take()
        return True

    def take_kind(self, kind: str, expected: str) -> Token:
        """Take a token of this kind, or raise an error that says what was expected."""
        if self.token.kind != kind:
            raise self.error(f"expected {expected}, found {self.found()}")
        return self.take()

    def found(self) -> str:
        """The next token in words, for messages."""
        if self.token.kind == "end":
            return "the end of the file"
        text = self.token.text
        return f"'{text}'" if len(text) <= LONGEST_SHOWN else f"'{text[:LONGEST_SHOWN]}...'"
