"""One thread and no wall-clock deadlines: these tests compare numbers, they do not time anything."""

from __future__ import annotations

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("guidance", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("guidance")
