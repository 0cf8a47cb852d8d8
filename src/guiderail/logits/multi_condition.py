"""Guidance with more than one condition: which null goes where.

Every rule here is affine, so each is given as a function from scales to weights (sum 1), to be fed to
`affine_combination`, and the order of the streams is spelled out. All scales are 1-neutral: with every scale at 1 the
weights are (1, 0, 0, ...): the fully conditioned stream.

A rule may only use null combinations the model was trained with: dropping two conditions together is a third network
behaviour, not the sum of two. `require_trained_nulls` turns that into an error.

Sources: nested rule, VoxInstruct (Zhou et al. 2024, arXiv:2408.15676); draft/prompt nesting in the manner of DraCo;
cross-stream anchor in the manner of Harmony's SyncCFG; base-plus-subject in the manner of HM-CFG; style and context
in the manner of PickStyle's CS-CFG. The last four name families: their papers treat continuous diffusion, and the
token form is ours.
"""

from __future__ import annotations

from collections.abc import Iterable

from guiderail.logits.combination import Weight


def nested_weights(inner_scale: Weight, outer_scale: Weight) -> tuple[Weight, Weight, Weight]:
    """Two nulls, applied one inside the other: VoxInstruct's acoustic step.

        m = null_inner + inner_scale * (c - null_inner)
        g = null_outer + outer_scale * (m - null_outer)

    Order matters: swapping the scales is a different rule.

    >>> nested_weights(3.0, 1.5)
    (4.5, -3.0, -0.5)

    Returns: weights of (c, null_inner, null_outer).
    """
    return outer_scale * inner_scale, outer_scale * (1 - inner_scale), 1 - outer_scale


def factored_weights(scales: Iterable[Weight]) -> tuple[Weight, ...]:
    """One null per condition, each with its own scale and no order: `g = c + sum_i (s_i - 1)(c - null_i)`.

    Where `null_i` drops condition i alone. This is what composing one classifier-free term per condition gives.

    Returns: weights of (c, null_1, null_2, ...).
    """
    nulls = [1 - scale for scale in scales]
    own: Weight = 1 - sum(nulls)
    return own, *nulls


def chained_weights(scales: Iterable[Weight]) -> tuple[Weight, ...]:
    """Conditions added one after the other: `g = l_0 + s_1 (l_1 - l_0) + s_2 (l_2 - l_1) + ...`.

    l_0 has no condition, l_i has the first i. DraCo's two scales are chained (null, draft, draft + prompt); HM-CFG's
    are (base null, base with prompt, tuned with prompt).

    >>> chained_weights([1.0, 1.0])
    (1.0, 0.0, 0.0)

    Returns: weights with the fully conditioned stream first: (l_n, l_{n-1}, ..., l_0).
    """
    steps = list(scales)
    if not steps:
        raise ValueError("a chain needs at least one scale")
    weights = [steps[-1]]
    weights.extend(steps[i - 1] - steps[i] for i in range(len(steps) - 1, 0, -1))
    weights.append(1 - steps[0])
    return tuple(weights)


def style_context_weights(style_scale: Weight, context_scale: Weight) -> tuple[Weight, Weight, Weight]:
    """Two directions from one full stream: away from 'no style', and away from 'shuffled context'.

        g = l(no style) + style_scale (c - l(no style)) + (context_scale - 1)(c - l(shuffled context))

    The second null is the context in shuffled order, not its absence: it isolates what the order carries.

    Returns: weights of (c, no style, shuffled context).
    """
    return style_scale + context_scale - 1, 1 - style_scale, 1 - context_scale


def require_trained_nulls(used: Iterable[frozenset[str]], trained: Iterable[frozenset[str]]) -> None:
    """Refuse null combinations the model never saw.

    Args:
        used: for each null stream of a rule, the names of the conditions it drops.
        trained: the combinations dropped in training; frozenset() (nothing dropped) is always trained.
    Raises: ValueError naming each combination that was not trained.
    """
    known = {frozenset[str](), *trained}
    unknown = sorted({combination for combination in used if combination not in known}, key=sorted)
    if unknown:
        wanted = "; ".join(" + ".join(sorted(combination)) for combination in unknown)
        raise ValueError(f"guidance needs nulls this model was not trained with: {wanted}")
