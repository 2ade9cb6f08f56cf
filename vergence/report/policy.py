"""What a page of ours lets a browser do: show what is in the page, in the styles and by the script that are named here.

A page's own policy stands in a meta element. There `frame-ancestors`, `sandbox` and reports cannot be asked for: who
serves pages to others says these in the server's headers.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence


def named(text: str) -> str:
    """What a policy calls a style sheet or a script: the hash of its text.

    >>> named("")
    "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
    """
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def policy(styles: Sequence[str], scripts: Sequence[str] = (), *, figures: bool = False) -> str:
    """A content security policy: nothing is loaded, no form is sent, no address is relative to another.

    >>> policy(["'sha256-A='"])
    "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; style-src 'sha256-A='"
    >>> policy(["'sha256-A='"], ["'sha256-B='"], figures=True).partition("form-action 'none'; ")[2]
    "style-src 'unsafe-inline'; style-src-elem 'sha256-A='; script-src 'sha256-B='"

    Args:
        styles: the names of the page's style sheets; no other is obeyed.
        scripts: likewise.
        figures: whether it has figures of matplotlib's, whose elements carry styles of their own. Style sheets are
            held to their names all the same; an old browser, which cannot tell the two apart, takes any.
    """
    rules = ["default-src 'none'", "img-src data:", "base-uri 'none'", "form-action 'none'"]
    sheets = " ".join(styles)
    rules += ["style-src 'unsafe-inline'", f"style-src-elem {sheets}"] if figures else [f"style-src {sheets}"]
    rules += [f"script-src {' '.join(scripts)}"] if scripts else []
    return "; ".join(rules)
