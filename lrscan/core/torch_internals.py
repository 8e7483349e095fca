"""Names of torch that are not public, each with the reason why no public one does."""

from __future__ import annotations

import torch

# Keep a function out of Dynamo's graphs. ``torch.compiler.disable`` does the same, but imports all
# of the compiler when it decorates, which takes seconds.
outside_the_compiler = torch._disable_dynamo
