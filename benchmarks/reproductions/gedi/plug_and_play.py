"""PPLM (Dathathri et al. 2020, arXiv:1912.02164), the baseline: gradient ascent on the cached keys and values.

At every token, with past keys and values H and a linear attribute classifier on the mean hidden state, repeat

    loss   =  -log p(attribute | mean hidden state under H + D)  +  kl_scale KL(p(H + D) || p(H))
    D     <-  D - step_size gradient / |gradient|          (norm per row and layer)

then sample from  p(H + D)^fusion p(H)^(1 - fusion), renormalised. The mean runs over the text so far and, one step
ahead, over the expected embedding of the next token (the paper's horizon of one). With a bag of words the first term is
-log of the probability of the words in it, as in the paper's topic experiments. A readable version for comparison; left
out: windows over the past, adaptive gradient decay, several attributes at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


@dataclass(frozen=True, slots=True)
class PlugAndPlay:
    """Settings; the defaults are the paper's for sentiment, with 10 iterations.

    `counts` of `generate`: forward and backward passes of the model, each over all rows.
    """

    iterations: int = 10
    step_size: float = 0.03
    kl_scale: float = 0.01
    fusion: float = 0.95

    def generate(
        self, model: Any, classifier: nn.Module, attribute: int, prompts: Tensor, new_tokens: int,
        generator: torch.Generator, *, bag: Tensor | None = None, report: Callable[[int], None] | None = None,
    ) -> tuple[Tensor, dict[str, int]]:  # fmt: skip
        """Continue int64 (rows, length) prompts by exactly `new_tokens`; (rows, new_tokens) and counts.

        Args: classifier of mean hidden states and the attribute wanted; bag token ids, in place of the classifier.
        """
        counts = {"forward": 0, "backward": 0}
        rows = prompts.shape[0]
        target = torch.full((rows,), attribute)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        with torch.no_grad():
            output = self._read(model, counts, input_ids=prompts[:, :-1])
        past, total = _states(output.past_key_values), output.hidden_states[-1].sum(1)
        last, seen, out = prompts[:, -1:], prompts.shape[1] - 1, []
        for step in range(new_tokens):
            with torch.no_grad():
                plain = self._read(model, counts, past, input_ids=last)
            unperturbed = torch.log_softmax(plain.logits[:, -1].float(), -1)
            shifts = [torch.zeros_like(state, requires_grad=True) for state in past]
            for _ in range(self.iterations):
                moved = [state + shift for state, shift in zip(past, shifts, strict=True)]
                output = self._read(model, counts, moved, input_ids=last)
                scores = torch.log_softmax(output.logits[:, -1].float(), -1)
                divergence = (scores.exp() * (scores - unperturbed)).sum()
                if bag is not None:
                    wanted = -scores[:, bag].logsumexp(-1).sum()
                else:
                    expected = scores.exp() @ model.get_input_embeddings().weight
                    ahead = self._read(model, counts, _states(output.past_key_values), inputs_embeds=expected[:, None])
                    summed = total + output.hidden_states[-1][:, -1] + ahead.hidden_states[-1][:, -1]
                    wanted = cross_entropy(classifier(summed / (seen + 2)), target, reduction="sum")
                loss = wanted + self.kl_scale * divergence
                counts["backward"] += 1
                gradients = torch.autograd.grad(loss, shifts)
                with torch.no_grad():
                    for shift, gradient in zip(shifts, gradients, strict=True):
                        norm = gradient.flatten(1).norm(dim=1).clamp(min=1e-12)
                        shift -= self.step_size * gradient / norm[:, None, None, None]
            with torch.no_grad():
                moved = [state + shift for state, shift in zip(past, shifts, strict=True)]
                output = self._read(model, counts, moved, input_ids=last)
                perturbed = torch.log_softmax(output.logits[:, -1].float(), -1)
                fused = self.fusion * perturbed + (1 - self.fusion) * unperturbed
                drawn = torch.multinomial(torch.softmax(fused, -1), 1, generator=generator)
            # The history keeps its own keys and values; only the choice of this token was moved.
            past, total = _states(plain.past_key_values), total + plain.hidden_states[-1][:, -1]
            last, seen = drawn, seen + 1
            out.append(drawn)
            if report is not None:
                report(step)
        return torch.cat(out, 1), counts

    def _read(self, model: Any, counts: dict[str, int], past: list[Tensor] | None = None, **inputs: Any) -> Any:
        counts["forward"] += 1
        cache = transformers.DynamicCache()
        if past is not None:
            for layer in range(len(past) // 2):
                cache.update(past[2 * layer], past[2 * layer + 1], layer)
        return model(**inputs, past_key_values=cache, use_cache=True, output_hidden_states=True)


def _states(cache: Any) -> list[Tensor]:
    """Keys and values, layer by layer."""
    return [state for layer in cache.layers for state in (layer.keys, layer.values)]


def attribute_classifier(model: Any, texts: Tensor, counted: Tensor, labels: Tensor, classes: int) -> nn.Linear:
    """The linear classifier PPLM follows: multinomial regression on mean last hidden states, a full fit.

    Args: texts int64 (count, length), padded; counted bool (count, length); labels (count,).
    """
    with torch.no_grad():
        means = []
        for part, mask in zip(texts.split(128), counted.split(128), strict=True):
            hidden = model(input_ids=part, output_hidden_states=True).hidden_states[-1]
            means.append((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))
    features = torch.cat(means)
    classifier = nn.Linear(features.shape[1], classes)
    optimizer = torch.optim.LBFGS(classifier.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(classifier(features), labels) + 1e-4 * classifier.weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)
    return classifier.requires_grad_(False)
