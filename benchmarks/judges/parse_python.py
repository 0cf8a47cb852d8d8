"""Which texts `ast.parse` of the Python that runs this takes. Run by file for another Python: nothing but its library.

python3.12 parse_python.py FILE   FILE: a JSON list of texts; prints [version, verdicts]
"""

from __future__ import annotations

import ast
import json
import sys
import warnings
from collections.abc import Sequence


def verdicts(texts: Sequence[str]) -> list[bool]:
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for text in texts:
            try:
                ast.parse(text)
                found.append(True)
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                found.append(False)
    return found


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as given:
        print(json.dumps([list(sys.version_info[:2]), verdicts(json.load(given))]))
