"""Regular expressions that are lists in disguise, read as the lists they are.

Caches that ban by regular expression have taught their clients to write lists of tags, hosts and paths as patterns:
`((^|,)cat_p_12(,|$))|((^|,)cat_c_3(,|$))`, `(tag1|tag2)(,.+)?$`, `^(www\\.example\\.com)$`, `^/blog/.*`. A purge here
names tags, and never looks through what is stored; so the small grammar below reads these forms, and says of
everything else that it is a pattern. Nothing is ever matched by what a client sent, so nothing takes long.

    list    = branch *( "|" branch )
    branch  = *( edge / literal / group )      a group's choices are multiplied out
    group   = "(" list ")"
    edge    = "^" / "$" / a group of edges and separators / "(" separator ".+" ")?"
    literal = characters, and any other with "\\" before it

A literal without edges means itself: `tag1` is the tag tag1, where a matcher would also find it within tag10.
"""

import re
from dataclasses import dataclass

MAX_LENGTH = 64 * 1024
MAX_CHOICES = 10_000
MAX_DEPTH = 16

_ALL = re.compile(r"\^?\(*\.[*+]\)*\$?|\^|\$|")
_EDGES = re.compile(r"\((?:\?:)?(?:\^|\$|,|\\s| |;|\\b|\[[, ;\\s]+\]|\|)+\)[?*]?|\^|\$|\\b|\((?:\?:)?[,; ]\.[+*]\)[?*]")
_LITERAL = re.compile(r"(?:[^\\^$.|?*+()\[\]{}]|\\[^A-Za-z0-9]|\.(?![*+?{]))+")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


class NoListError(Exception):
    """A true pattern."""


def is_all(pattern: str) -> bool:
    """Does it match whatever there is?"""
    return _ALL.fullmatch(pattern.strip()) is not None


def choices(pattern: str) -> tuple[str, ...]:
    """The texts a pattern lists, each once. Raises `NoListError`."""
    if len(pattern) > MAX_LENGTH:
        raise NoListError
    reader = _Reader(pattern)
    found = reader.alternatives(0)
    if reader.at != len(pattern) or "" in found:
        raise NoListError
    return tuple(dict.fromkeys(found))


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def alternatives(self, depth: int) -> list[str]:
        if depth > MAX_DEPTH:
            raise NoListError
        found = self.branch(depth)
        while self.at < len(self.text) and self.text[self.at] == "|":
            self.at += 1
            found += self.branch(depth)
            if len(found) > MAX_CHOICES:
                raise NoListError
        return found

    def branch(self, depth: int) -> list[str]:
        found = [""]
        while self.at < len(self.text) and self.text[self.at] not in "|)":
            if (edge := _EDGES.match(self.text, self.at)) is not None:
                self.at = edge.end()
                continue
            if (literal := _LITERAL.match(self.text, self.at)) is not None:
                # A quantifier is about the last character alone: no list.
                self.at = literal.end()
                parts = [_ESCAPE.sub(r"\1", literal[0])]
            elif self.text[self.at] == "(":
                self.at += 3 if self.text.startswith("(?:", self.at) else 1
                parts = self.alternatives(depth + 1)
                if not self.text.startswith(")", self.at):
                    raise NoListError
                self.at += 1
            else:
                raise NoListError
            if self.at < len(self.text) and self.text[self.at] in "?*+{":
                raise NoListError
            if len(found) * len(parts) > MAX_CHOICES:
                raise NoListError
            found = [a + b for a in found for b in parts]
        return found


@dataclass(frozen=True, slots=True)
class Paths:
    """What a pattern on URLs covers: one URL's path and query, or a path with everything below it."""

    text: str
    below: bool
    exact: bool = True
    """False: more is covered than the pattern says."""


_BELOW = re.compile(r"(?:/|/?\.[*+]|/?\(\.[*+]\)|\(/\.[*+]\)\??|\(/\|\$\)|\(/\|\?\|\$\))\$?")
_TO_THE_END = re.compile(r"\.[*+]\$?|")


def _branches(tail: str) -> bool:
    """May what follows a beginning say something else instead of it, by a "|" in no group?"""
    if "|" not in tail:
        return False
    if "[" in tail or r"\Q" in tail:
        return True  # what looks like the edge of a group need not be one
    depth = 0
    for character in _ESCAPE.sub("", tail):
        depth += (character == "(") - (character == ")")
        if character == "|" and depth <= 0:
            return True
    return False


def paths(pattern: str) -> Paths:
    """Raises `NoListError` where it is no path, and no beginning of one."""
    begins = pattern.startswith("^")
    rest = pattern[begins:]
    literal = _LITERAL.match(rest)
    if literal is None or not literal[0].startswith("/"):
        raise NoListError
    path, tail = _ESCAPE.sub(r"\1", literal[0]), rest[literal.end() :]
    if _branches(tail):
        raise NoListError
    if tail == "$" and begins:
        return Paths(path, below=False)
    if "?" in path:
        raise NoListError
    if path.endswith("/") and _TO_THE_END.fullmatch(tail) is not None:
        return Paths(path, below=True)
    if _BELOW.fullmatch(tail) is not None and tail[0] != ".":
        return Paths(path, below=True)
    if not begins:
        if tail:
            raise NoListError
        return Paths(path, below=True)
    if tail[:1] in ("?", "*", "{"):
        path = path[:-1]  # what may also be missing
    return Paths(path[: path.rfind("/") + 1] or "/", below=True, exact=False)
