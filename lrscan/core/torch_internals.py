"""What of torch is used here that is not public, each with the reason why nothing public does.

They were seen in torch 2.13, on a CPU, and in torch 2.11, on a GPU. No other module of the package
uses a name of torch that begins with an underscore.

They are bound by name, not looked up at every call: a call of the operator asks seven of them, and
takes some 20 microseconds in all.
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

# ---------------------------------------------------------------- who looks at the operations

# How many modes of torch's dispatcher are on (fake tensors, tracing, counters of operations). The
# public ``torch.utils._python_dispatch`` enters modes, but has no question about them.
dispatch_modes = torch._C._len_torch_dispatch_stack

# Whether a mode is on that sees calls of torch's functions. Nothing public asks that.
function_mode_is_on = torch._C._is_torch_function_mode_enabled

# Whether torch.jit traces. ``torch.jit.is_tracing`` asks the same by two more calls.
is_tracing = torch._C._is_tracing


def only_the_default_device() -> bool:
    """Whether the modes are those of ``torch.set_default_device``, which change no operation here.

    Neither the list of modes nor that one's class is public.
    """
    return all(type(mode) is DeviceContext for mode in _get_current_function_mode_stack())


def is_fake(tensor: Tensor) -> bool:
    """Whether a tensor has a shape but no data, as in tracing: it is of a class not public."""
    return isinstance(tensor, FakeTensor)


# ---------------------------------------------------------------- derivatives

# Whether a function of torch.func (vmap, grad, jvp, ...) runs. torch.func has no question for it.
transforms_are_active = torch._C._are_functorch_transforms_active

# Whether a tensor is a batch of gradients of ``torch.autograd.grad(is_grads_batched=True)`` or
# ``torch.autograd.functional.jacobian(vectorize=True)``, which use an older vmap than torch.func.
is_batched = torch._C._functorch.is_legacy_batchedtensor

# Dispatch below autograd, for a function that has its derivatives. ``torch.no_grad`` would switch
# off those of outer levels of torch.func too.
below_autograd = torch._C._AutoDispatchBelowAutograd

# An autograd.Function at the one level of torch.func that the dispatcher is at, and what lets it be
# applied there. ``torch.library.register_autograd`` makes such a one, but torch.func takes no
# gradient of it.
SingleLevelFunction = _SingleLevelFunction
single_level_functions = enable_single_level_autograd_function


def forward_ad_is_on() -> bool:
    """Whether a derivative may be asked for in forward mode.

    The public ``torch.autograd.forward_ad`` enters levels, but has no question about them.
    """
    return forward_ad._current_level >= 0


def jvp_levels() -> int:
    """How many levels of forward mode torch.func is in: it drops tangents from two on.

    Nothing public tells the levels.
    """
    stack = torch._C._functorch.get_interpreter_stack() or ()
    return sum(level.key() == torch._C._functorch.TransformType.Jvp for level in stack)


def modifications(tensor: Tensor) -> int:
    """How often a tensor was modified in place, as autograd counts; it has no public counter."""
    return 0 if tensor.is_inference() else tensor._version


# ---------------------------------------------------------------- the compiler and data parallel

# Keep a function out of Dynamo's graphs. ``torch.compiler.disable`` does the same, but imports all
# of the compiler when it decorates, which takes seconds.
outside_the_compiler = torch._disable_dynamo


def data_parallel_at_work() -> nn.parallel.DistributedDataParallel | None:
    """The DistributedDataParallel whose forward runs in this thread; nothing public tells it."""
    return getattr(nn.parallel.DistributedDataParallel, "_active_ddp_module", None)


# ---------------------------------------------------------------- modules


def own_buffers(module: nn.Module) -> dict[str, Tensor | None]:
    """The buffers of a module without its submodules, by name: the dictionary that holds them.

    ``named_buffers`` tells them, but the public way to exchange one is an assignment, which goes
    through ``__setattr__``, and a class may have one of its own.
    """
    return module._buffers


# ---------------------------------------------------------------- measurements

# Keep the current stream of a GPU busy for so many cycles. Nothing public waits on the device.
sleep_on_the_gpu = torch.cuda._sleep


def associative_scan() -> Callable[..., Any]:
    """torch's own scan, which has no public name yet. It is for measurements alone."""
    from torch._higher_order_ops.associative_scan import associative_scan

    return associative_scan
