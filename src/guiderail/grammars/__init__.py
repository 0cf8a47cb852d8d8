"""Front ends: what may be said, as text or types, turned into a `Grammar`."""

from __future__ import annotations

from guiderail.grammars.grammar import Grammar, ReportRow

__all__ = ["Grammar", "ReportRow"]
