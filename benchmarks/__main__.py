"""`make bench`: what needs nothing but the other engines.

`python -m benchmarks NAME …` runs one, also those that want a corpus or a model.
"""

from __future__ import annotations

import sys

from . import (
    bfcl,
    closing,
    equivalence,
    flat,
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
    "flat": flat.main,
    "free_keys": free_keys.main,
}
# The others want something: a corpus (languages, equivalence, suite), a model (bfcl, generation), SynCode's own
# environment, hours (walks).
BY_DEFAULT = ("masks", "grammars", "closing", "sizes", "flat", "free_keys", "guidance", "kernel")


def main() -> None:
    chosen, *rest = sys.argv[1:] or [""]
    if chosen in RUNNERS:
        RUNNERS[chosen](rest)
    elif chosen in ("", "all"):
        for name in BY_DEFAULT:
            RUNNERS[name]([])
    else:
        raise SystemExit(f"usage: python -m benchmarks [all | {' | '.join(RUNNERS)}] [options]")


if __name__ == "__main__":
    main()
