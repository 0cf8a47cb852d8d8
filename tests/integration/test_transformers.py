"""`GrammarLogitsProcessor` inside `model.generate`: every way of decoding ends in the language, nothing is ever reset.

Tiny models with random weights and a vocabulary of single bytes: what they say is noise, so whatever is right is the
grammar's doing. Logits are wider than the vocabulary, as real models' are.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import guiderail as gr
from guiderail.errors import DeadEndError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from guiderail.integrations.transformers import GrammarLogitsProcessor  # noqa: E402

EOS, PAD, WIDTH = 256, 257, 264


@pytest.fixture(scope="module")
def vocabulary() -> gr.Vocabulary:
    return gr.Vocabulary.from_bytes([*(bytes([byte]) for byte in range(256)), b"", b""], eos_token_ids=[EOS])


def tiny_model(seed: int) -> Any:
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=WIDTH,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        initializer_range=0.5,  # at the usual 0.02 the distribution is flat and all beams are alike
        bos_token_id=None,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )
    return transformers.LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model(0)


@pytest.fixture(scope="module")
def assistant() -> Any:
    return tiny_model(1)


GRAMMARS = {
    "choices": gr.Grammar.from_choices(["yes", "no", "maybe", "not at all"]),
    "numbers": gr.Grammar.from_regex(r"[0-9]{1,3}(,[0-9]{1,3}){2,4}"),
    "nested": gr.Grammar.from_gbnf('root ::= "(" root? ")" root? | [a-c]{2,3}'),
    "assignments": gr.Grammar.from_lark(
        'start: (NAME "=" INT ";")~2\nNAME: /[a-z]{1,4}/\nINT: /[0-9]{1,3}/\n%ignore " "'
    ),
}


def batch(prompts: Sequence[bytes]) -> dict[str, Any]:
    """Left-padded inputs."""
    width = max(map(len, prompts))
    ids = [[PAD] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def generated(output: Any, inputs: dict[str, Any]) -> list[bytes]:
    """The bytes after the prompt, without EOS and padding. An EOS must be there: none was cut off."""
    texts = []
    for row in output[:, inputs["input_ids"].shape[1] :].tolist():
        assert EOS in row
        end = row.index(EOS)
        assert all(token == PAD for token in row[end + 1 :])
        texts.append(bytes(row[:end]))
    return texts


def run(model: Any, inputs: dict[str, Any], processor: Any, **options: Any) -> Any:
    settings = {"do_sample": False, "max_new_tokens": 100, **options}
    return model.generate(**inputs, logits_processor=[processor], **settings)


@pytest.mark.parametrize("limit", [2, 5, 12])
@pytest.mark.parametrize("beams", [1, 3])
def test_max_tokens_closes_an_endless_language(model: Any, vocabulary: gr.Vocabulary, limit: int, beams: int) -> None:
    """Every row is a whole text although generation stops at `limit` tokens, with no room for EOS."""
    inputs = batch([b"a", b"longer prompt", b"mid"])
    processor = GrammarLogitsProcessor(gr.compile(GRAMMARS["nested"], vocabulary), max_tokens=limit)
    sampling = {"do_sample": True, "temperature": 5.0} if beams == 1 else {"num_beams": beams}
    for _ in range(3):
        output = run(model, inputs, processor, max_new_tokens=limit, **sampling)
        for row in output[:, inputs["input_ids"].shape[1] :].tolist():
            assert GRAMMARS["nested"].accepts(bytes(token for token in row if token < 256))


def test_max_tokens_that_cannot_be_kept(model: Any, vocabulary: gr.Vocabulary) -> None:
    processor = GrammarLogitsProcessor(gr.compile(GRAMMARS["nested"], vocabulary), max_tokens=1)
    with pytest.raises(gr.errors.LimitError, match="max_tokens"):
        run(model, batch([b"a"]), processor, max_new_tokens=1)


@pytest.mark.parametrize("name", GRAMMARS)
@pytest.mark.parametrize("sampled", [False, True], ids=["greedy", "sampled"])
def test_a_batch_with_left_padding(model: Any, vocabulary: gr.Vocabulary, name: str, sampled: bool) -> None:
    inputs = batch([b"a", b"longer prompt", b"mid"])
    processor = GrammarLogitsProcessor(gr.compile(GRAMMARS[name], vocabulary))
    options = {"do_sample": sampled, "max_new_tokens": 300}
    if name == "nested":  # an endless language: sampling a random model need not come to its end
        options |= {"do_sample": sampled, "temperature": 5.0} if sampled else {}
        output = run(model, inputs, processor, **options)
        for row in output[:, inputs["input_ids"].shape[1] :].tolist():
            text = bytes(token for token in row if token < 256)
            assert GRAMMARS[name].accepts_prefix(text)
            assert GRAMMARS[name].accepts(text) or EOS not in row
        return
    for text in generated(run(model, inputs, processor, **options), inputs):
        assert GRAMMARS[name].accepts(text)


def test_one_grammar_per_row(model: Any, vocabulary: gr.Vocabulary) -> None:
    names = ["choices", "numbers", "assignments"]
    inputs = batch([b"same", b"same", b"another"])
    processor = GrammarLogitsProcessor([gr.compile(GRAMMARS[name], vocabulary) for name in names])
    for name, text in zip(names, generated(run(model, inputs, processor), inputs), strict=True):
        assert GRAMMARS[name].accepts(text)
    # …and with the rows that num_return_sequences and beams make of each prompt.
    for options in ({"do_sample": True}, {"num_beams": 3}):
        texts = generated(run(model, inputs, processor, num_return_sequences=3, **options), inputs)
        for name, text in zip(np.repeat(names, 3), texts, strict=True):
            assert GRAMMARS[name].accepts(text)


def test_rows_that_do_not_fit_the_number_of_constraints(model: Any, vocabulary: gr.Vocabulary) -> None:
    processor = GrammarLogitsProcessor([gr.compile(GRAMMARS["choices"], vocabulary)] * 2)
    with pytest.raises(ValueError, match="3 rows cannot be shared out among 2 constraints"):
        run(model, batch([b"a", b"b", b"c"]), processor)


@pytest.mark.parametrize("num_beams", [2, 4])
def test_beam_search(model: Any, vocabulary: gr.Vocabulary, num_beams: int) -> None:
    inputs = batch([b"first", b"the second"])
    processor = GrammarLogitsProcessor(gr.compile(GRAMMARS["numbers"], vocabulary))
    output = run(
        model,
        inputs,
        processor,
        num_beams=num_beams,
        num_return_sequences=num_beams,
        return_dict_in_generate=True,
        output_scores=True,
    )
    assert torch.isfinite(output.sequences_scores).all()
    texts = generated(output.sequences, inputs)
    assert all(GRAMMARS["numbers"].accepts(text) for text in texts)
    assert len(set(texts[:num_beams])) == num_beams  # beams are different texts


def test_beam_search_finds_the_best_text_of_a_finite_language(model: Any, vocabulary: gr.Vocabulary) -> None:
    """With as many beams as there are prefixes nothing is pruned, so the best beam is the argmax over the language."""
    choices = [b"yes", b"no", b"maybe", b"not at all"]
    inputs = batch([b"which?"])
    processor = GrammarLogitsProcessor(gr.compile(GRAMMARS["choices"], vocabulary))
    output = run(model, inputs, processor, num_beams=8, length_penalty=0.0)

    def log_probability(text: bytes) -> float:
        # Beam search adds up what the processor left of the log-probabilities, not renormalised.
        ids = torch.tensor([[*b"which?", *text, EOS]])
        with torch.no_grad():
            scores = model(ids).logits.log_softmax(-1)[0, len(b"which?") - 1 : -1]
        return float(scores[torch.arange(len(text) + 1), ids[0, len(b"which?") :]].sum())

    assert generated(output, inputs) == [max(choices, key=log_probability)]


@pytest.mark.parametrize("name", ["choices", "numbers", "assignments"])
def test_assisted_decoding_gives_what_plain_greedy_decoding_gives(
    model: Any, assistant: Any, vocabulary: gr.Vocabulary, name: str
) -> None:
    compiled = gr.compile(GRAMMARS[name], vocabulary)
    inputs = batch([b"a prompt 12,12,12 yes no"])
    expected = run(model, inputs, GrammarLogitsProcessor(compiled))
    processor = GrammarLogitsProcessor(compiled)
    for _ in range(2):  # the second time with the same processor, drafts and all
        assert run(model, inputs, processor, assistant_model=assistant).tolist() == expected.tolist()
        assert run(model, inputs, processor, prompt_lookup_num_tokens=4).tolist() == expected.tolist()
        assert run(model, inputs, processor).tolist() == expected.tolist()
    assert GRAMMARS[name].accepts(*generated(expected, inputs))


def test_assisted_sampling(model: Any, assistant: Any, vocabulary: gr.Vocabulary) -> None:
    processor = GrammarLogitsProcessor(gr.compile(GRAMMARS["numbers"], vocabulary))
    inputs = batch([b"sample"])
    for _ in range(5):
        output = run(model, inputs, processor, assistant_model=assistant, do_sample=True)
        assert GRAMMARS["numbers"].accepts(*generated(output, inputs))


def test_one_processor_for_many_calls(model: Any, vocabulary: gr.Vocabulary) -> None:
    grammar = GRAMMARS["numbers"]
    processor = GrammarLogitsProcessor(gr.compile(grammar, vocabulary))
    # Shorter, longer, equal, and each an extension of the one before by a token the grammar would have allowed.
    for prompts in ([b"Q: 1"], [b"Q: 12"], [b"Q: 123"], [b"Q"], [b"other", b"Q: 1"], [b"Q: 1"], [b"Q: 1"]):
        inputs = batch(prompts)
        assert all(grammar.accepts(text) for text in generated(run(model, inputs, processor), inputs))
        beams = run(model, inputs, processor, num_beams=2)
        assert all(grammar.accepts(text) for text in generated(beams, inputs))


def test_a_conversation_goes_on_after_an_answer(model: Any, vocabulary: gr.Vocabulary) -> None:
    """The next prompt holds the earlier output; that is prompt now."""
    grammar = GRAMMARS["choices"]
    processor = GrammarLogitsProcessor(gr.compile(grammar, vocabulary))
    history = b"first?"
    for question in (b"\nsecond?", b"\n", b" third?"):
        inputs = batch([history])
        (text,) = generated(run(model, inputs, processor), inputs)
        assert grammar.accepts(text)
        history += text + question


@pytest.mark.parametrize("cut", [1, 3, 5])
def test_a_truncated_output_is_resumed(model: Any, vocabulary: gr.Vocabulary, cut: int) -> None:
    compiled = gr.compile(GRAMMARS["numbers"], vocabulary)
    inputs = batch([b"one", b"number two"])
    expected = run(model, inputs, GrammarLogitsProcessor(compiled))
    processor = GrammarLogitsProcessor(compiled)
    partial = run(model, inputs, processor, max_new_tokens=cut)
    mask = torch.cat([inputs["attention_mask"], torch.ones_like(partial[:, -cut:])], dim=1)
    resumed = run(model, {"input_ids": partial, "attention_mask": mask}, processor)
    width = min(resumed.shape[1], expected.shape[1])
    assert resumed[:, :width].tolist() == expected[:, :width].tolist()


def test_a_batch_is_resumed_in_which_some_rows_had_ended(model: Any, vocabulary: gr.Vocabulary) -> None:
    """generate does not know that those rows have ended; they must not grow a text behind their end."""
    names = ["choices", "numbers"]
    compiled = [gr.compile(gr.Grammar.from_choices(["a"]), vocabulary), gr.compile(GRAMMARS["numbers"], vocabulary)]
    processor = GrammarLogitsProcessor(compiled)
    inputs = batch([b"one", b"two"])
    partial = run(model, inputs, processor, max_new_tokens=4)
    assert partial[0, 3:].tolist() == [ord("a"), EOS, PAD, PAD]
    resumed = run(model, {"input_ids": partial, "attention_mask": (partial != PAD).long()}, processor)
    assert set(resumed[0, 5:].tolist()) <= {EOS, PAD}
    (text,) = generated(resumed[1:], inputs)
    assert GRAMMARS[names[1]].accepts(text)


def test_a_prefix_in_the_prompt_is_continued(model: Any, vocabulary: gr.Vocabulary) -> None:
    compiled = gr.compile(GRAMMARS["numbers"], vocabulary)
    inputs = batch([b"numbers: 1,2"])
    (text,) = generated(run(model, inputs, GrammarLogitsProcessor(compiled, prefix="1,2")), inputs)
    assert GRAMMARS["numbers"].accepts(b"1,2" + text)
    with pytest.raises(ValueError, match="2 prefixes for 1 constraints"):
        GrammarLogitsProcessor(compiled, prefix=["a", "b"])


def test_forget_makes_the_next_rows_prompts(vocabulary: gr.Vocabulary) -> None:
    processor = GrammarLogitsProcessor(gr.compile(gr.Grammar.from_choices(["ab"]), vocabulary))
    prompt, longer = torch.tensor([list(b"x")]), torch.tensor([list(b"xa")])
    assert allowed(processor(prompt, torch.zeros(1, WIDTH))) == [{ord("a")}]
    assert allowed(processor(longer, torch.zeros(1, WIDTH))) == [{ord("b")}]
    processor.forget()
    assert allowed(processor(longer, torch.zeros(1, WIDTH))) == [{ord("a")}]


def allowed(scores: Any) -> list[set[int]]:
    return [set(torch.isfinite(row).nonzero().flatten().tolist()) for row in scores]


def test_scores_are_not_modified_and_finished_rows_may_only_end_again(vocabulary: gr.Vocabulary) -> None:
    processor = GrammarLogitsProcessor(gr.compile(gr.Grammar.from_choices(["a", "bb"]), vocabulary))
    rows = [list(b"p"), list(b"q")]
    for tokens in ([ord("a"), ord("b")], [EOS, ord("b")], [PAD, EOS]):
        scores = torch.randn(2, WIDTH)
        before = scores.clone()
        result = processor(torch.tensor(rows), scores)
        assert torch.equal(scores, before)
        assert result.data_ptr() != scores.data_ptr()
        if rows[0][-1] in (EOS, PAD):
            assert allowed(result)[0] == {EOS}
            assert result[0, EOS] == before[0, EOS]
        rows = [[*row, token] for row, token in zip(rows, tokens, strict=True)]


def test_eos_is_forced_when_nothing_else_can_follow(vocabulary: gr.Vocabulary) -> None:
    processor = GrammarLogitsProcessor(gr.compile(gr.Grammar.from_choices(["a"]), vocabulary))
    rows = torch.tensor([[1]])
    for expected in (ord("a"), EOS, EOS, EOS):  # a caller that does not stop at EOS is told to, again and again
        assert allowed(processor(rows, torch.zeros(1, WIDTH))) == [{expected}]
        rows = torch.cat([rows, torch.tensor([[expected]])], dim=1)


def test_several_eos_and_logits_of_other_widths() -> None:
    tokens = [b"a", b"b", b"", b""]
    vocabulary = gr.Vocabulary.from_bytes(tokens, eos_token_ids=[2, 3])
    compiled = gr.compile(gr.Grammar.from_choices(["a"]), vocabulary)
    for width, eos in ((4, {2, 3}), (40, {2, 3}), (3, {2})):
        processor = GrammarLogitsProcessor(compiled)
        assert allowed(processor(torch.tensor([[7]]), torch.zeros(1, width))) == [{0}]
        assert allowed(processor(torch.tensor([[7, 0]]), torch.zeros(1, width))) == [eos]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_dtypes(vocabulary: gr.Vocabulary, dtype: str) -> None:
    processor = GrammarLogitsProcessor(gr.compile(gr.Grammar.from_choices(["a"]), vocabulary))
    scores = torch.zeros(1, WIDTH, dtype=getattr(torch, dtype))
    result = processor(torch.tensor([[1]]), scores)
    assert result.dtype == scores.dtype
    assert allowed(result) == [{ord("a")}]


def test_dead_ends_are_errors() -> None:
    vocabulary = gr.Vocabulary.from_bytes([b"a", b"b", b""], eos_token_ids=[2])
    with pytest.raises(DeadEndError, match="the vocabulary cannot write any text"):
        gr.compile(gr.Grammar.from_choices(["c"]), vocabulary)
    without_eos = gr.Vocabulary.from_bytes([b"a"])
    processor = GrammarLogitsProcessor(gr.compile(gr.Grammar.from_choices(["a"]), without_eos))
    processor(torch.tensor([[0]]), torch.zeros(1, 1))
    with pytest.raises(DeadEndError, match="row 0: the text is complete"):
        processor(torch.tensor([[0, 0]]), torch.zeros(1, 1))


def test_an_invalid_draft_does_not_disturb_the_rows_before_it(vocabulary: gr.Vocabulary) -> None:
    """Prompt lookup drafts what it likes: positions behind a refused token are asked about; that is no error."""
    processor = GrammarLogitsProcessor(gr.compile(gr.Grammar.from_choices(["abc", "abd"]), vocabulary))
    prompt = list(b"p")
    draft = torch.tensor([[*prompt, *b"axb"]])
    finite = [allowed(processor(draft[:, :width], torch.zeros(1, WIDTH)))[0] for width in range(1, 5)]
    assert finite[:2] == [{ord("a")}, {ord("b")}]
    assert all(len(ids) == WIDTH for ids in finite[2:])  # nobody will use these
    # The next round starts behind the accepted part of the draft and the model's own token.
    second = torch.tensor([[*prompt, *b"abd", EOS]])
    finite = [allowed(processor(second[:, :width], torch.zeros(1, WIDTH)))[0] for width in range(3, 5)]
    assert finite == [set(b"cd"), {EOS}]


def test_it_agrees_with_a_matcher_on_every_path(vocabulary: gr.Vocabulary) -> None:
    """Rows in any order, duplicated and dropped, as beam search does: each has the mask of a matcher fed its tokens."""
    rng = np.random.default_rng(5)
    compiled = gr.compile(GRAMMARS["nested"], vocabulary)
    processor = GrammarLogitsProcessor(compiled)
    prompts = [[1, 2], [3, 4], [1, 2]]
    rows = [list(prompt) for prompt in prompts for _ in range(4)]
    for _ in range(30):
        result = allowed(processor(torch.tensor(rows), torch.zeros(len(rows), WIDTH)))
        for row, ids in zip(rows, result, strict=True):
            matcher = compiled.matcher()
            assert matcher.accept_tokens(row[2:]) == len(row) - 2
            if not matcher.is_terminated:
                bitmask = gr.allocate_token_bitmask(1, vocabulary)
                matcher.fill_next_token_bitmask(bitmask)
                bits = np.unpackbits(bitmask.view(np.uint8), bitorder="little")
                assert ids == set(np.flatnonzero(bits).tolist())
        # Each beam of a prompt continues any beam of that prompt; EOS is avoided so that the walk goes on.
        chosen = []
        for place in range(len(rows)):
            parent = 4 * (place // 4) + int(rng.integers(4))
            options = sorted(result[parent] - {EOS}) or [EOS]
            chosen.append([*rows[parent], int(rng.choice(options))])
        if any(row[-1] == EOS for row in chosen):
            break
        rows = chosen


def test_prompts_that_are_embeddings(model: Any, vocabulary: gr.Vocabulary) -> None:
    """Then the rows hold generated tokens only, and the prompt has no tokens at all."""
    processor = GrammarLogitsProcessor(gr.compile(GRAMMARS["numbers"], vocabulary))
    embeddings = model.get_input_embeddings()(torch.tensor([list(b"prompt"), list(b"second")]))
    for options in ({}, {"num_beams": 2}, {"do_sample": True}):
        output = run(model, {"inputs_embeds": embeddings}, processor, pad_token_id=PAD, **options)
        for row in output.tolist():
            assert GRAMMARS["numbers"].accepts(bytes(row[: row.index(EOS)]))


def test_an_encoder_decoder_model(vocabulary: gr.Vocabulary) -> None:
    """Every generation starts from the same one token; rows of earlier calls must not leak into later ones."""
    torch.manual_seed(3)
    config = transformers.T5Config(
        vocab_size=WIDTH,
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=1,
        num_heads=2,
        decoder_start_token_id=PAD,
        pad_token_id=PAD,
        eos_token_id=EOS,
    )
    t5 = transformers.T5ForConditionalGeneration(config).eval()
    processor = GrammarLogitsProcessor(gr.compile(GRAMMARS["numbers"], vocabulary))
    for prompts, options in itertools.product(
        ([b"one"], [b"one", b"and two"]), ({}, {"num_beams": 3}, {"do_sample": True})
    ):
        output = run(t5, batch(prompts), processor, **options)
        for row in output.tolist():
            assert GRAMMARS["numbers"].accepts(bytes(row[1 : row.index(EOS)]))


def test_long_outputs_cost_no_more_at_their_end(model: Any, vocabulary: gr.Vocabulary) -> None:
    """Positions are found from the previous call, and nodes give their matchers back: no quadratic time or memory."""
    processor = GrammarLogitsProcessor(gr.compile(gr.Grammar.from_regex("[a-z]*"), vocabulary))
    rows = np.zeros((4, 3000), dtype=np.int64) + ord("a")
    rows[:, 0] = range(4)
    holders = processor._tree._holders
    for width in range(1, 3000):
        processor(torch.from_numpy(rows[:, :width].copy()), torch.zeros(4, 2))
        assert len(holders) <= 256
    # An old position, of which nothing is kept but the tokens, is found and works.
    again = processor(torch.from_numpy(rows[:, :1500].copy()), torch.zeros(4, WIDTH))
    assert allowed(again)[0] == {*range(ord("a"), ord("z") + 1), EOS}


# --- a real model ----------------------------------------------------------------------------------------------------

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def smollm2() -> Any:
    sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
    try:
        import smollm2
    finally:
        sys.path.pop(0)
    try:
        return smollm2.load()
    except smollm2.MissingPackage as missing:
        pytest.skip(str(missing))


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_beams": 3, "num_return_sequences": 3},
        {"do_sample": True, "num_return_sequences": 2, "temperature": 0.8},
        {"prompt_lookup_num_tokens": 4},
    ],
    ids=["greedy", "beams", "sampled", "prompt lookup"],
)
def test_objects_from_a_real_model(smollm2: Any, options: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    language_model, tokenizer = smollm2
    vocabulary = gr.Vocabulary.from_tokenizer(tokenizer, vocab_size=language_model.config.vocab_size)
    grammar = gr.Grammar.from_json_schema(SCHEMA, whitespace="compact")
    processor = GrammarLogitsProcessor(gr.compile(grammar, vocabulary))
    texts = ["Alice is 31 years old.", "My grandfather Bob turned 90 last week."]
    if "prompt_lookup_num_tokens" in options:
        texts = texts[:1]  # transformers assists one row at a time
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": f"Extract a JSON object with name and age from: {text}"}],
            tokenize=False,
            add_generation_prompt=True,
        )
        for text in texts
    ]
    inputs = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)
    settings = {"do_sample": False, "max_new_tokens": 60, **options}
    output = language_model.generate(**inputs, logits_processor=[processor], **settings)
    for row in output[:, inputs["input_ids"].shape[1] :]:
        jsonschema.validate(json.loads(tokenizer.decode(row, skip_special_tokens=True)), SCHEMA)
