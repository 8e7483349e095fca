"""A net as it is in the forward pass, kept for evaluating a chunk of it again in backward."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lrscan.core.time_axis import WHOLE, along
from lrscan.core.torch_internals import modifications, own_buffers

_OF_A_CLASS = ("__dict__", "__weakref__")  # what Python itself gives to every class


class Kept:
    """All that the modules of a net hold now, to be used in backward whatever they hold then.

    That is every attribute: parameters, plain tensors, in lists and dictionaries too, flags such as
    ``training``, submodules. So it does not matter who has put another tensor in the place of a
    weight by then: the next forward pass of a net that makes its weights, the end of
    ``torch.func.functional_call``, an average of weights. Modules are copied, tensors are not; one
    that is modified in place is refused in backward, as it is by any other operation of torch.
    Buffers are copied, for a net may modify its own: running means, the vectors of a spectral norm.

    What is not an attribute of a module (a global variable, say) is used as it is in backward.
    """

    def __init__(self, net: nn.Module) -> None:
        self._net = net
        self._copies: dict[int, Any] = {}
        self._originals: list[Any] = []  # so that none of them is freed, and its id given away
        self._tensors: list[tuple[str, Tensor, int]] = []
        self._buffers: list[tuple[nn.Module, str, Tensor]] = []
        self._of_last_chunk: list[tuple[int, Tensor]] = []
        self._copy = self._copied(net, "")

    def evaluation(self, function: Callable) -> Callable:
        """``function(net, ...)`` of one chunk: first with the net itself, again with its copy.

        Raises:
            RuntimeError: when it is evaluated again, and a tensor has been modified in place
        """
        buffers: list[Tensor] | None = None

        def evaluate(*given: Any) -> Any:
            nonlocal buffers
            if buffers is None:
                buffers = self._buffers_now()
                return function(self._net, *given)
            self._check()
            for (module, name, _), value in zip(self._buffers, buffers, strict=True):
                own_buffers(module)[name] = value.clone()
            with along(WHOLE):
                return function(self._copy, *given)

        return evaluate

    def _check(self) -> None:
        changed = [name for name, tensor, count in self._tensors if modifications(tensor) != count]
        if changed:
            raise RuntimeError(
                f"backward evaluates the chunks of a long sequence again, but since the forward "
                f"pass {', '.join(changed)} of the {type(self._net).__name__} has been modified "
                f"in place"
            )

    def _buffers_now(self) -> list[Tensor]:
        """A copy of each buffer; that of the chunk before, where it is the same."""
        last = self._of_last_chunk or [(-1, buffer) for _, _, buffer in self._buffers]
        self._of_last_chunk = [
            (now, value if now == version else buffer.detach().clone())
            for (version, value), (_, _, buffer) in zip(last, self._buffers, strict=True)
            for now in [modifications(buffer)]
        ]
        return [value for _, value in self._of_last_chunk]

    def _copied(self, value: Any, name: str) -> Any:
        """What stands for a value in the copy of the net; the value itself if it holds nothing."""
        if id(value) in self._copies:
            return self._copies[id(value)]
        if isinstance(value, Tensor):
            return self._note(value, self._alias(value, name))
        if isinstance(value, nn.Module) and not isinstance(value, torch.jit.ScriptModule):
            return self._copied_module(value, name)
        if type(value) in (dict, OrderedDict):
            new = self._note(value, copy.copy(value))
            new.update((key, self._copied(part, _join(name, key))) for key, part in value.items())
            return new
        if type(value) is list or isinstance(value, tuple) and type(value) is not torch.Size:
            parts = [self._copied(part, _join(name, i)) for i, part in enumerate(value)]
            if all(new is old for new, old in zip(parts, value, strict=True)):
                return value
            made = type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
            return self._note(value, made)
        if isinstance(value, MethodType) and isinstance(value.__self__, nn.Module):
            return MethodType(value.__func__, self._copied(value.__self__, name))
        return value

    def _copied_module(self, module: nn.Module, name: str) -> nn.Module:
        kind = type(module)
        if parametrize.is_parametrized(module):  # a class of its own, which may lose its weights
            own = {key: value for key, value in vars(kind).items() if key not in _OF_A_CLASS}
            kind = type(kind.__name__, kind.__bases__, own)
        new = self._note(module, object.__new__(kind))
        for key, value in vars(module).items():
            inner = name if key in ("_parameters", "_modules") else _join(name, key)
            held = copy.copy(value) if key == "_buffers" else self._copied(value, inner)
            new.__dict__[key] = held
        for key, buffer in own_buffers(module).items():
            if buffer is not None:
                self._buffers.append((new, key, buffer))
        return new

    def _note(self, original: Any, stands_for_it: Any) -> Any:
        self._originals.append(original)
        self._copies[id(original)] = stands_for_it
        return stands_for_it

    def _alias(self, tensor: Tensor, name: str) -> Tensor:
        """The same memory, also if ``.data`` of the tensor is replaced."""
        alias = tensor.detach().requires_grad_(tensor.requires_grad)
        self._tensors.append((name, alias, modifications(alias)))
        return alias


def _join(name: str, key: Any) -> str:
    return f"{name}.{key}" if name else str(key)
