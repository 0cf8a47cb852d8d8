"""Where each row of a batch stands in its constraint, found from the row's tokens and nothing else.

`model.generate` shows a logits processor the token ids so far, once for each distribution it is about to use. Beam
search permutes and duplicates rows between calls, assisted decoding asks for several positions of a draft and then
takes part of it back, one processor serves many calls of `generate`. A matcher per row breaks in all of these. So the
key is the tokens: a tree whose root is a prompt and whose edges are generated tokens; a node is a position in the
constraint, whoever gets there.

    prompt ──"{"──●──"a"──● beam 0          nodes hold forks of matchers, which are one integer each;
                  └──"b"──● beam 1, 2       old nodes give theirs back and re-derive it from an ancestor if asked again

What is prompt and what was generated is not in the tokens. But before a token is generated, the rows up to it have
been asked about. Hence: a call continues a generation when every row without its last token is a node of it.
Otherwise the rows are prompts, and a generation begins. Two refinements, against prompts that extend each other ("Q:
1", then "Q: 12"):

- A row that turns off from a known path earlier than the generation's end continues it only where that path was a
  draft (assisted decoding). Drafts are recognised when the positions of one candidate are asked about one after the
  other, in one tensor.
- A call in which no row could have been generated (each last token was banned) is a call with prompts.

What remains ambiguous is a prompt that equals an earlier prompt of the same processor plus output that was generated
for it. It continues that output: this is how a truncated output is resumed. `forget()` makes the next call a new
beginning.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from guiderail.compiled import fill_next_token_bitmask_batch
from guiderail.errors import DeadEndError

if TYPE_CHECKING:
    from guiderail.compiled import CompiledGrammar, Matcher

Rows = npt.NDArray[np.int64]

# Generations whose nodes are kept: universal assisted decoding shows two token spaces in turn, so one is not enough.
KEPT_GENERATIONS = 4


class Standing(enum.Enum):
    """What became of a row."""

    OPEN = "the constraint decides about the next token"
    FINISHED = "ended by EOS; what follows is padding"
    BANNED = "its last token was not allowed: a refused draft, or a beam of probability zero"


class Position:
    """A node: a row of tokens, as far as the constraint is concerned."""

    __slots__ = ("children", "constraint", "drafted", "matcher", "parent", "standing", "token")

    def __init__(self, constraint: int, parent: Position | None, token: int, standing: Standing) -> None:
        self.constraint = constraint
        self.parent = parent
        self.token = token
        self.standing = standing
        self.matcher: Matcher | None = None
        self.drafted = False
        self.children: dict[int, Position] | None = None

    def child(self, token: int) -> Position | None:
        return None if self.children is None else self.children.get(token)


class _Generation:
    """The nodes of one call of `generate`: a tree for each prompt and constraint."""

    def __init__(self, rows: Rows, constraints: Sequence[int]) -> None:
        self.prompt_width = rows.shape[1]
        self.widest = self.prompt_width
        self.roots: dict[tuple[int, bytes], Position] = {}
        for row, constraint in zip(rows, constraints, strict=True):
            key = (constraint, row.tobytes())
            if key not in self.roots:
                self.roots[key] = Position(constraint, None, -1, Standing.OPEN)
        # The previous call: most calls extend its rows by one token each, in the same order.
        self.last_rows = rows
        self.last_constraints = list(constraints)
        self.last_positions = self.root_positions(rows, constraints)
        self.last_by_content: dict[tuple[int, bytes], Position] | None = None

    def root_positions(self, rows: Rows, constraints: Sequence[int]) -> list[Position]:
        return [self.roots[c, row.tobytes()] for row, c in zip(rows, constraints, strict=True)]

    def remember(self, rows: Rows, constraints: Sequence[int], positions: list[Position]) -> None:
        self.widest = max(self.widest, rows.shape[1])
        self.last_rows, self.last_constraints, self.last_positions = rows, list(constraints), positions
        self.last_by_content = None

    def find(self, rows: Rows, constraints: Sequence[int]) -> list[Position] | None:
        """The nodes of these rows, or None unless there is one for each."""
        if rows.shape[1] < self.prompt_width:
            return None
        if list(constraints) == self.last_constraints and np.array_equal(rows, self.last_rows):
            return self.last_positions
        if self.last_by_content is None:
            last = zip(self.last_constraints, self.last_rows, self.last_positions, strict=True)
            self.last_by_content = {(constraint, row.tobytes()): position for constraint, row, position in last}
        found: list[Position] = []
        for constraint, row in zip(constraints, rows, strict=True):
            position = self.last_by_content.get((constraint, row.tobytes())) or self.walk(constraint, row)
            if position is None:
                return None
            found.append(position)
        return found

    def walk(self, constraint: int, row: npt.NDArray[np.int64]) -> Position | None:
        position = self.roots.get((constraint, row[: self.prompt_width].tobytes()))
        for token in row[self.prompt_width :].tolist():
            if position is None:
                return None
            position = position.child(token)
        return position


class GenerationTree:
    """Finds the position of each row and fills its mask.

    Args:
        constraints: compiled grammars, all for vocabularies of one size.
        prefixes: text that the prompts already hold of each constraint's language; one for each constraint.
        pending: bytes to be spelled first (`CompiledGrammar.matcher`); none, or one for each constraint.
        max_tokens: every row is complete after at most that many tokens; None: no limit.
    """

    def __init__(
        self,
        constraints: Sequence[CompiledGrammar],
        prefixes: Sequence[bytes],
        *,
        max_tokens: int | None = None,
        pending: Sequence[bytes] = (),
    ) -> None:
        self._limits: dict[str, int] = {} if max_tokens is None else {"max_tokens": max_tokens}
        self.constraints = list(constraints)
        self.prefixes = list(prefixes)
        self.pending = list(pending) or [b""] * len(self.constraints)
        self._generations: list[_Generation] = []
        # Positions that hold a matcher, oldest first.
        self._holders: deque[Position] = deque()
        self._capacity = 256

    def forget(self) -> None:
        """Take the rows of the next call as prompts."""
        self._generations.clear()
        self._holders.clear()

    def locate(self, rows: Rows, *, drafted: bool = False) -> list[Position]:
        """The position of each row, after the rules of this module's description.

        Args:
            rows: int64 (batch, width), C-contiguous; not modified, and must not be modified afterwards.
            drafted: the rows are those of the previous call and one more token of a draft.
        Raises: ValueError if the batch is not a multiple of the number of constraints.
        """
        count = len(self.constraints)
        if len(rows) % count:
            raise ValueError(f"{len(rows)} rows cannot be shared out among {count} constraints, one per prompt")
        self._capacity = max(self._capacity, 8 * len(rows))
        # Beams and returned sequences of one prompt are neighbours, so rows // prompts of them share its constraint.
        constraints = [row // (len(rows) // count) for row in range(len(rows))] if len(rows) else []
        for generation in reversed(self._generations):
            positions = self._continue(generation, rows, constraints, drafted)
            if positions is not None:
                self._generations.remove(generation)
                self._generations.append(generation)
                generation.remember(rows, constraints, positions)
                return positions
        return self._begin(rows, constraints)

    def _begin(self, rows: Rows, constraints: Sequence[int]) -> list[Position]:
        generation = _Generation(rows, constraints)
        # The same prompts again, in the same batch: nothing of the earlier run can be meant any more.
        repeated = [old for old in self._generations if old.roots.keys() == generation.roots.keys()]
        self._generations = [old for old in self._generations if old not in repeated][1 - KEPT_GENERATIONS :]
        self._generations.append(generation)
        return generation.last_positions

    def _continue(
        self, generation: _Generation, rows: Rows, constraints: Sequence[int], drafted: bool
    ) -> list[Position] | None:
        """The rows' positions in `generation`, or None if they do not continue it."""
        width = rows.shape[1]
        if width <= generation.prompt_width:
            return None
        parents = generation.find(np.ascontiguousarray(rows[:, :-1]), constraints)
        if parents is None:
            return None
        tokens = rows[:, -1].tolist()
        if width <= generation.widest and not all(
            parent.child(token) or _only_drafts_follow(parent) for parent, token in zip(parents, tokens, strict=True)
        ):
            return None
        new: dict[tuple[int, int], Position] = {}
        positions: list[Position] = []
        for parent, token in zip(parents, tokens, strict=True):
            known = parent.child(token) or new.get((id(parent), token))
            if known is None:
                known = new[id(parent), token] = self._successor(parent, token)
            positions.append(known)
        if not drafted and all(position.standing is Standing.BANNED for position in positions):
            return None
        for (_, token), child in new.items():
            assert child.parent is not None
            if child.parent.children is None:
                child.parent.children = {}
            child.parent.children[token] = child
        for position in positions:
            position.drafted |= drafted
        return positions

    def _successor(self, parent: Position, token: int) -> Position:
        if parent.standing is not Standing.OPEN:
            return Position(parent.constraint, parent, token, parent.standing)
        matcher = self.matcher(parent).fork()
        if not matcher.accept_token(token):
            return Position(parent.constraint, parent, token, Standing.BANNED)
        standing = Standing.FINISHED if matcher.is_terminated else Standing.OPEN
        position = Position(parent.constraint, parent, token, standing)
        if standing is Standing.OPEN:
            self._hold(position, matcher)
        return position

    def matcher(self, position: Position) -> Matcher:
        """The matcher of an open position. Shared: fork it before moving it."""
        path: list[int] = []
        ancestor = position
        while ancestor.matcher is None and ancestor.parent is not None:
            path.append(ancestor.token)
            ancestor = ancestor.parent
        if ancestor.matcher is None:
            compiled, prefix = self.constraints[ancestor.constraint], self.prefixes[ancestor.constraint]
            pending = self.pending[ancestor.constraint]
            options: dict[str, Any] = {**self._limits, **({"prefix": prefix} if prefix else {})}
            options |= {"pending": pending} if pending else {}
            self._hold(ancestor, compiled.matcher(**options))
        assert ancestor.matcher is not None
        if path:
            matcher = ancestor.matcher.fork()
            matcher.accept_tokens(path[::-1])
            self._hold(position, matcher)
        assert position.matcher is not None
        return position.matcher

    def _hold(self, position: Position, matcher: Matcher) -> None:
        position.matcher = matcher
        self._holders.append(position)
        while len(self._holders) > self._capacity:
            self._holders.popleft().matcher = None

    def fill(self, positions: Sequence[Position], words: int) -> tuple[list[int], npt.NDArray[np.int32]]:
        """Masks of the rows that the constraint has a say in.

        Returns: their indices, and int32 (len(indices), words). A finished row may only end again: engines overwrite
            what comes after EOS, and a caller that does not know this EOS, or resumes a batch in which some rows had
            ended, must not get free text there. Banned rows are left out.
        Raises: DeadEndError for a row that no token of the vocabulary continues.
        """
        indices = [i for i, position in enumerate(positions) if position.standing is not Standing.BANNED]
        masks = np.zeros((len(indices), words), dtype=np.int32)
        place_of: dict[Position, int] = {}  # beams and samples stand together at first
        copies: list[tuple[int, int]] = []
        for place, i in enumerate(indices):
            if positions[i].standing is Standing.FINISHED:
                self._allow_eos(positions[i], masks[place].view(np.uint32))
            elif place_of.setdefault(positions[i], place) != place:
                copies.append((place, place_of[positions[i]]))
        matchers = [self.matcher(position) for position in place_of]
        fill_next_token_bitmask_batch(matchers, masks, list(place_of.values()))
        for place, source in copies:
            masks[place] = masks[source]
        for place in np.flatnonzero(~masks.any(axis=1)).tolist():
            raise self._dead_end(positions[indices[place]], indices[place])
        return indices, masks

    def _allow_eos(self, position: Position, words: npt.NDArray[np.uint32]) -> None:
        for token in self.constraints[position.constraint].vocabulary.eos_token_ids:
            words[token // 32] |= np.uint32(1 << (token % 32))

    def _dead_end(self, position: Position, row: int) -> DeadEndError:
        if self.matcher(position).is_accepting:
            return DeadEndError(f"row {row}: the text is complete, and the vocabulary has no EOS to end it with")
        return DeadEndError(f"row {row}: no token of the vocabulary can continue the text")


def _only_drafts_follow(position: Position) -> bool:
    return position.children is None or all(child.drafted for child in position.children.values())
