"""Errors that are the user's to mend, and the spelling suggestions they carry."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LamkitError(Exception):
    """Base of every error that LAMKit raises on purpose."""


class UserError(LamkitError):
    """The user's input is wrong: the message names the place, what was found and the cure (exit code 2)."""


class Interrupted(LamkitError):
    """The user stopped the run (Ctrl-C); what was done is saved and the message says how to go on."""


def suggest(name: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` for a name close to one that is known, else an empty string."""
    close = difflib.get_close_matches(str(name), [str(k) for k in known], n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""
