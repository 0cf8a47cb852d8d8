"""`make bench`: schemas, then everything else. `python -m benchmarks masks …` (or `grammars …`) runs one of them."""

from __future__ import annotations

import sys

from . import (
    bfcl,
    closing,
    equivalence,
    free_keys,
    generation,
    grammars,
    languages,
    masks,
    sizes,
    suite,
    syncode,
    walks,
)
from .guidance import __main__ as guidance
from .guidance import kernel

RUNNERS = {
    "masks": masks.main,
    "grammars": grammars.main,
    "languages": languages.main,
    "closing": closing.main,
    "equivalence": equivalence.main,
    "generation": generation.main,
    "sizes": sizes.main,
    "suite": suite.main,
    "syncode": syncode.main,
    "guidance": guidance.main,
    "kernel": kernel.main,
    "walks": walks.main,
    "bfcl": bfcl.main,
    "free_keys": free_keys.main,
}


def main() -> None:
    chosen, *rest = sys.argv[1:] or [""]
    if chosen in RUNNERS:
        RUNNERS[chosen](rest)
    elif chosen in ("", "all"):
        for run in RUNNERS.values():
            run([])
    else:
        raise SystemExit(f"usage: python -m benchmarks [all | {' | '.join(RUNNERS)}] [options]")


if __name__ == "__main__":
    main()
