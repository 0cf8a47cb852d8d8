"""A small language with sentiment, topics and rude words, whose classes are known exactly.

A text is three to five sentences, half of the time with its topic word before the begin token, as a title. A sentence
reads

    determiner  noun  verb  [adverb]  [opinion]  .

Nouns come from the text's topic (0.6) or from all texts; each noun goes with four verbs. Opinions come from the
lexicon of the text's sentiment (0.6), of the other one (0.1), or are neutral. In one text of ten, nine adverbs of ten
are rude. Topic words are nouns of their topic, so a language model learns what they mean from the company they keep.

Given the class, words of a lexicon are drawn independently, so a Naive Bayes classifier with the true tables is the
exact posterior: the external judge of all control. It has never seen a model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

TOPICS, NOUNS, SHARED, VERBS, OPINIONS, ADVERBS, RUDE = 8, 8, 16, 24, 14, 5, 6
TRAINED_TOPICS = 4  # topic words the discriminator is trained on; it never sees the others as codes
END, BEGIN, STOP = range(3)
CODES = {name: 3 + index for index, name in enumerate(("negative", "positive", "dirty", "clean", "false", "true"))}
_NEXT = 9


def _block(size: int) -> range:
    global _NEXT
    _NEXT += size
    return range(_NEXT - size, _NEXT)


DETERMINER = _block(3)
TOPIC_NOUN = [_block(NOUNS) for _ in range(TOPICS)]
SHARED_NOUN, VERB, ADVERB, RUDE_ADVERB = _block(SHARED), _block(VERBS), _block(ADVERBS), _block(RUDE)
OPINION = [_block(OPINIONS) for _ in range(3)]  # negative, positive, neutral
VOCAB = _NEXT
TOPIC_WORD = [nouns[0] for nouns in TOPIC_NOUN]
OWN_OPINION, OTHER_OPINION = 0.6, 0.1


@dataclass(frozen=True, slots=True)
class Text:
    """Token ids without title, begin and end, and what they are about."""

    ids: tuple[int, ...]
    topic: int
    sentiment: int  # 0 negative, 1 positive
    rude: bool
    titled: bool


def verbs_of(noun: int) -> np.ndarray:
    """The four verbs that go with a noun; a fixed property of the language, the same for every seed."""
    return np.random.default_rng([20, noun]).choice(VERBS, size=4, replace=False) + VERB.start


def sentence(rng: np.random.Generator, topic: int, sentiment: int, rude: bool) -> list[int]:
    """One sentence, stop included."""
    nouns = TOPIC_NOUN[topic] if rng.random() < 0.6 else SHARED_NOUN
    noun = int(rng.choice(nouns))
    words = [int(rng.choice(DETERMINER)), noun, int(rng.choice(verbs_of(noun)))]
    if rng.random() < 0.5:
        words.append(int(rng.choice(RUDE_ADVERB if rude and rng.random() < 0.9 else ADVERB)))
    if rng.random() < 0.8:
        kind = rng.choice(
            [sentiment, 1 - sentiment, 2], p=[OWN_OPINION, OTHER_OPINION, 1 - OWN_OPINION - OTHER_OPINION]
        )
        words.append(int(rng.choice(OPINION[kind])))
    return [*words, STOP]


def text(rng: np.random.Generator, rude_share: float = 0.1) -> Text:
    """One text of the corpus."""
    topic, sentiment = int(rng.integers(TOPICS)), int(rng.integers(2))
    rude, titled = bool(rng.random() < rude_share), bool(rng.random() < 0.5)
    words: list[int] = []
    for _ in range(int(rng.integers(3, 6))):
        words += sentence(rng, topic, sentiment, rude)
    return Text(tuple(words), topic, sentiment, rude, titled)


def sentiment_log_odds(ids: Sequence[int]) -> float:
    """log P(positive | opinions) - log P(negative | opinions), exact."""
    positive = sum(token in OPINION[1] for token in ids)
    negative = sum(token in OPINION[0] for token in ids)
    return (positive - negative) * math.log(OWN_OPINION / OTHER_OPINION)


def topic_posterior(ids: Sequence[int]) -> np.ndarray:
    """P(topic | nouns), exact up to a topic's nouns being impossible elsewhere, softened to 0.001."""
    counts = np.array([sum(token in nouns for token in ids) for nouns in TOPIC_NOUN], dtype=float)
    score = counts * math.log(1000)
    weights = np.exp(score - score.max())
    return weights / weights.sum()


def is_grammatical(ids: Sequence[int]) -> bool:
    """Whether the complete sentences of a text follow the template; an unfinished last one does not count."""
    sentences: list[list[int]] = [[]]
    for word in ids:
        sentences[-1].append(word)
        if word == STOP:
            sentences.append([])
    return all(_is_sentence(words) for words in sentences[:-1])


def _is_sentence(words: list[int]) -> bool:
    if len(words) < 4 or words[0] not in DETERMINER or not _is_noun(words[1]) or words[2] not in verbs_of(words[1]):
        return False
    rest = words[3:-1]
    if rest and (rest[0] in ADVERB or rest[0] in RUDE_ADVERB):
        rest = rest[1:]
    if rest and OPINION[0].start <= rest[0] < OPINION[-1].stop:
        rest = rest[1:]
    return not rest


def _is_noun(token: int) -> bool:
    return TOPIC_NOUN[0].start <= token < SHARED_NOUN.stop


def spelled(ids: Sequence[int]) -> str:
    """A text made readable: what each token is, with its number within its kind."""
    kinds: list[tuple[range, str]] = [
        (DETERMINER, "the"),
        *((nouns, f"noun-of-{topic}-") for topic, nouns in enumerate(TOPIC_NOUN)),
        (SHARED_NOUN, "noun"),
        (VERB, "verb"),
        (ADVERB, "very"),
        (RUDE_ADVERB, "RUDE"),
        *zip(OPINION, ("bad", "good", "plain"), strict=True),
    ]
    fixed = {END: "", BEGIN: "", STOP: "."}
    words = []
    for token in ids:
        own = next((f"{name}{token - block.start}" for block, name in kinds if token in block), fixed.get(token, "?"))
        words.append(own)
    return " ".join(word for word in words if word)
