"""GeDi's zero-shot topics again, with a tuning that goes on reading: on the models of `gedi`.

Tuned on half of the topic words the small model forgets what the others mean. Here it is tuned on the same texts with
the same loss, and with the likelihood of the corpus, where all topic words are titles, beside it. Control is measured
over the four topics whose words stood under no code. What the models take a topic word to mean is read off them: the
chance that the first noun is one of its topic (guidance towards the topic is the ratio of that under true and false).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.reproductions.claims import Claim
from benchmarks.reproductions.gedi import (
    FIRST_SCALE,
    GENTLE,
    HALF_STEPS,
    SETTING,
    World,
    framed,
    language,
    padded,
    topic_term,
    written,
)  # fmt: skip
from benchmarks.reproductions.gedi.language import BEGIN, CODES, TOPIC_WORD, TOPICS, TRAINED_TOPICS, VOCAB
from benchmarks.reproductions.small_models import kept, language_model, next_token_loss, trained
from guiderail.training import GeDiModel

STEPS, BATCH, REPLAY = 300, 32, 3.0
OMEGAS = (0.3, 1.0, 3.0)


def tuned(world: World, scratch: Path, replay: float = REPLAY) -> GeDiModel:
    """True or false of a topic word in front; `replay` is the weight of the corpus' likelihood."""
    copy = language_model(VOCAB, 48, 2, world.seed)
    copy.load_state_dict(world.small.state_dict())
    model = GeDiModel(copy, {code: CODES[code] for code in ("false", "true")})
    with torch.no_grad():
        model.logit_scale.fill_(FIRST_SCALE)

    def loss(step: int) -> Tensor:
        rng = np.random.default_rng([world.seed, 4, step])
        rows, right = [], []
        for item in [t for t in world.picked(step, 3 * BATCH) if t.topic < TRAINED_TOPICS][:BATCH]:
            true = bool(rng.random() < 0.5)
            others = [t for t in range(TRAINED_TOPICS) if t != item.topic]
            named = item.topic if true else int(rng.choice(others))
            rows.append([TOPIC_WORD[named], *framed(item)])
            right.append(int(true))
        ids, counted = padded(rows)
        reading = np.random.default_rng([world.seed, 6, step])
        corpus = padded([written(language.text(reading)) for _ in range(BATCH)])
        judging = model.loss(ids, counted.long(), torch.tensor(right), 0.6)
        return judging + replay * next_token_loss(model.model, *corpus)

    return trained(model, loss, "topics-replayed", scratch, steps=STEPS)  # type: ignore[no-any-return]


@torch.no_grad()
def first_noun(model: Any, code: list[int], topics: range) -> float:
    """Chance that the first noun is of the named topic, given that it is of any; mean over topics and determiners."""
    model.eval()
    rows = torch.tensor([[*code, TOPIC_WORD[topic], BEGIN, word] for topic in topics for word in language.DETERMINER])
    chances = torch.softmax(model(input_ids=rows).logits[:, -1].float(), -1)
    by_topic = torch.stack([chances[:, list(nouns)].sum(1) for nouns in language.TOPIC_NOUN], 1)
    named = torch.tensor([topic for topic in topics for _ in language.DETERMINER])
    return float((by_topic.gather(1, named[:, None])[:, 0] / by_topic.sum(1)).mean())


def run(seed: int, scratch: Path) -> dict[str, Any]:
    world = World(seed, scratch.parent.parent / "gedi" / str(seed))
    model, unseen = tuned(world, scratch), range(TRAINED_TOPICS, TOPICS)
    models = {"tuned": world.topics(TRAINED_TOPICS, HALF_STEPS, GENTLE).model, "tuned, reading on": model.model}
    parts = {"words of the tuning": range(TRAINED_TOPICS), "unseen words": unseen}
    return {
        "first_noun_of_the_named_topic": {
            "before": {part: first_noun(world.small, [], topics) for part, topics in parts.items()},
            **{
                f"{name}, {code}": {part: first_noun(tuned, [CODES[code]], topics) for part, topics in parts.items()}
                for name, tuned in models.items()
                for code in ("true", "false")
            },
        },
        "held_out_topics_by_omega": {
            f"{w:g}": kept(scratch, f"held-out {w:g}", lambda w=w: world.on_topic(unseen, topic_term(model, w)))
            for w in OMEGAS
        },
    }


def _zero_shot(figures: Any) -> float:
    return float(max(row["accuracy"] for row in figures["held_out_topics_by_omega"].values()) * TOPICS)


CLAIMS = [
    Claim("G5 reading", "gedi.unseen", "topics it was not trained on", "accuracy on four held-out topics > 2 x chance, "
          "the tuning going on reading the corpus; value: multiples of chance", SETTING, _zero_shot, lambda v: v > 2,
          "Guidance is the ratio of two codes. Under true an unseen word keeps its meaning (the first noun is of its "
          "topic with chance {all first_noun_of_the_named_topic/tuned, reading on, true/unseen words|.2f} by seed); "
          "under false it would have to lose it, as the four words of the tuning do "
          "({first_noun_of_the_named_topic/tuned, reading on, false/words of the tuning|.2f}), and that four words do "
          "not teach in every seed ({all first_noun_of_the_named_topic/tuned, reading on, false/unseen words|.2f}): "
          "control follows ({all held_out_topics_by_omega/1/accuracy|.2f}; chance is 0.125). Without reading on, true "
          "forgets too ({all first_noun_of_the_named_topic/tuned, true/unseen words|.2f})."),
]  # fmt: skip
