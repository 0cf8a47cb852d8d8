"""The negative stream of a request with images (or sound, or video): its own prompt, with nothing to be seen in it.

What the media would have shown is what such a stream moves away from: descriptions become specific to the image
(classifier-free guidance of captioners; visual contrastive decoding: Leng et al., 2024). Two nulls, as
`guiderail.guidance.streams` has them for transformers:

- `BLANK`: media of the same size, all zeros after preprocessing: an image in the mean colour. Needs no other prompt.
- `NONE`: the prompt without the tokens that stand for media. Marks that a template puts around them stay.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from guiderail.integrations.vllm.guidance_request import NullMedia

__all__ = ["null_stream"]


def null_stream(kind: NullMedia, prompt: Sequence[int], features: Sequence[Any]) -> tuple[list[int], list[Any]]:
    """Token ids and media of the stream.

    Args: prompt, of the request; features, vLLM's MultiModalFeatureSpec of each of its media.
    Raises: ValueError for a request without media, and where vLLM keeps their data out of the scheduler's reach.
    """
    if not features:
        raise ValueError(f"negative_media {kind.value!r}: the request has no images or other media")
    if kind is NullMedia.NONE:
        places = {
            place
            for feature in features
            for place in range(feature.mm_position.offset, feature.mm_position.offset + feature.mm_position.length)
        }
        left = [token for place, token in enumerate(prompt) if place not in places]
        if not left:
            raise ValueError("negative_media 'none': nothing but media is in the prompt; take 'blank'")
        return left, []
    return list(prompt), [_blank(feature) for feature in features]


def _blank(feature: Any) -> Any:
    if feature.data is None:
        raise ValueError("negative_media 'blank' needs --mm-processor-cache-type lru: media are not in this process")
    data = type(feature.data)(
        {key: dataclasses.replace(element, data=_zeros(element.data)) for key, element in feature.data.items()}
    )
    # What encodes to the same has one name, so that caches hold it once; it is not the name of the media themselves.
    identifier = f"{feature.identifier}#guiderail-blank"
    return dataclasses.replace(feature, data=data, identifier=identifier, mm_hash=identifier)


def _zeros(data: Any) -> Any:
    """Zeros for samples (pixels, spectra): floating-point tensors with axes. Sizes, positions and rates stay."""
    if isinstance(data, torch.Tensor):
        return torch.zeros_like(data) if data.is_floating_point() and data.dim() > 1 else data
    if isinstance(data, (list, tuple)):
        return type(data)(_zeros(part) for part in data)
    return data
