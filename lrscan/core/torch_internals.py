"""Private names of torch that this package uses, each with the reason why no public one will do.

They exist in torch 2.13 (tried on a CPU) and torch 2.11 (tried on a GPU). No other module of the
package uses a name of torch that begins with an underscore.

They are bound at import, not looked up at every call: a call of the operator uses seven of them,
and takes about 20 microseconds in total.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._functorch.autograd_function import enable_single_level_autograd_function
from torch._subclasses import FakeTensor
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext

# ---------------------------------------------------------------- modes and fake tensors

# The number of active dispatcher modes (fake tensors, tracing, counters of operations). The
# documented ``torch.utils._python_dispatch`` enters modes, but cannot be queried.
dispatch_modes = torch._C._len_torch_dispatch_stack

# Return True if a mode is active that sees calls of torch's functions. No public function says so.
function_mode_is_on = torch._C._is_torch_function_mode_enabled

# Return True while torch.jit traces. ``torch.jit.is_tracing`` takes two more calls for the same.
is_tracing = torch._C._is_tracing


def only_the_default_device() -> bool:
    """Return True if every active mode is that of ``torch.set_default_device``.

    That mode changes no operation here. Neither the list of modes nor its class is public.
    """
    return all(type(mode) is DeviceContext for mode in _get_current_function_mode_stack())


def is_fake(tensor: Tensor) -> bool:
    """Return True if a tensor has a shape but no data, as in tracing. Its class is not public."""
    return isinstance(tensor, FakeTensor)


# ---------------------------------------------------------------- derivatives

# Return True inside a transform of torch.func (vmap, grad, jvp, ...). torch.func cannot be queried.
transforms_are_active = torch._C._are_functorch_transforms_active

# Return True if a tensor is a batch of gradients, made by an older vmap than that of torch.func:
# in ``torch.autograd.grad(is_grads_batched=True)`` or
# ``torch.autograd.functional.jacobian(vectorize=True)``.
is_batched = torch._C._functorch.is_legacy_batchedtensor

# Dispatch below autograd, for a function that provides its own derivatives. ``torch.no_grad`` would
# also switch off the derivatives of outer levels of torch.func.
below_autograd = torch._C._AutoDispatchBelowAutograd

# An autograd.Function for the single level of torch.func that the dispatcher is at, and the context
# that allows it there. ``torch.library.register_autograd`` makes one too, but torch.func cannot
# differentiate it.
SingleLevelFunction = _SingleLevelFunction
single_level_functions = enable_single_level_autograd_function


def forward_ad_is_on() -> bool:
    """Return True if a derivative may be needed in forward mode.

    The public ``torch.autograd.forward_ad`` enters levels, but cannot be queried.
    """
    return forward_ad._current_level >= 0


def jvp_levels() -> int:
    """Return the number of nested forward-mode levels of torch.func.

    From two levels on, torch drops tangents. No public function gives the number.
    """
    stack = torch._C._functorch.get_interpreter_stack() or ()
    return sum(level.key() == torch._C._functorch.TransformType.Jvp for level in stack)


def modifications(tensor: Tensor) -> int:
    """Return the number of in-place changes of a tensor. Autograd's counter is not public."""
    return 0 if tensor.is_inference() else tensor._version


# ---------------------------------------------------------------- the compiler and data parallel

# Decorator that keeps a function out of Dynamo's graphs. ``torch.compiler.disable`` does the same,
# but it imports the whole compiler when it decorates, which takes seconds.
outside_the_compiler = torch._disable_dynamo


def data_parallel_at_work() -> nn.parallel.DistributedDataParallel | None:
    """Return the DistributedDataParallel whose forward runs in this thread, or None.

    No public function gives it.
    """
    return getattr(nn.parallel.DistributedDataParallel, "_active_ddp_module", None)


# ---------------------------------------------------------------- modules


def own_buffers(module: nn.Module) -> dict[str, Tensor | None]:
    """Return the dictionary that holds a module's own buffers, without those of submodules.

    ``named_buffers`` lists them. But the public way to replace one is an assignment, which goes
    through ``__setattr__``, and a class may define its own.
    """
    return module._buffers


# ---------------------------------------------------------------- measurements

# Keep the current stream of a GPU busy for a number of cycles. No public function does so.
sleep_on_the_gpu = torch.cuda._sleep


def associative_scan() -> Callable[..., Any]:
    """Return torch's own scan, which has no public name yet. Only measurements use it."""
    from torch._higher_order_ops.associative_scan import associative_scan

    return associative_scan
