"""Text of others as a terminal or a message may have it: of a model, a file, a server or a name."""

from __future__ import annotations


def harmless(text: str) -> str:
    """Without what a terminal would obey, or print from right to left: a blank for each such character.

    >>> harmless("a\\x1b[31m\\u202eb\\n")
    'a [31m b\\n'
    """
    return "".join(char if char.isprintable() or char in "\n\t" else " " for char in text)


def printable(text: str) -> str:
    """The same without blanks around it."""
    return harmless(text).strip()


def one_line(text: str, most: int) -> str:
    """The same on one line, with one blank between words, cut.

    >>> one_line("one\\n\\x1b[2J two", most=99), one_line("longer", most=4)
    ('one [2J two', 'long...')
    """
    line = " ".join(harmless(text[: 64 * most]).split())
    return line if len(line) <= most else line[:most] + "..."
