"""Snapshot of a net in its forward pass, for evaluating chunks again in backward."""

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

_OF_A_CLASS = ("__dict__", "__weakref__")  # Python creates these for every class


class Snapshot:
    """Snapshot of the attributes of all modules of a net, so that backward uses them unchanged.

    It includes every attribute: parameters, plain tensors, also in lists and dictionaries, flags
    such as ``training``, and submodules. So a weight may be replaced by another tensor before
    backward. That happens in the next forward pass of a net that computes its weights, at the end
    of ``torch.func.functional_call``, and when weights are averaged.

    Modules are copied, but tensors are not. If a tensor was modified in place, backward raises an
    error, as it does for any other operation of torch. Buffers are copied, because a net may modify
    its own: running means, or the vectors of a spectral norm.

    Anything that is not an attribute of a module, such as a global variable, has in backward the
    value that it has then.
    """

    def __init__(self, net: nn.Module) -> None:
        self._net = net
        self._copies: dict[int, Any] = {}
        self._originals: list[Any] = []  # kept alive, so that no id is reused
        self._tensors: list[tuple[str, Tensor, int]] = []
        self._buffers: list[tuple[nn.Module, str, Tensor]] = []
        self._of_last_chunk: list[tuple[int, Tensor]] = []
        self._copy = self._copied(net, "")

    def evaluation(self, function: Callable) -> Callable:
        """Return a function that evaluates one chunk: first with the net, later with its copy.

        It calls ``function(net, ...)``. A later call raises RuntimeError if a tensor was modified
        in place since the snapshot.
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
                f"{', '.join(changed)} of the {type(self._net).__name__} was modified in place "
                f"after the forward pass, but backward evaluates the chunks of a long sequence "
                f"again: modify it after backward"
            )

    def _buffers_now(self) -> list[Tensor]:
        """Return a copy of each buffer; an unchanged one shares the copy of the chunk before."""
        last = self._of_last_chunk or [(-1, buffer) for _, _, buffer in self._buffers]
        self._of_last_chunk = [
            (now, value if now == version else buffer.detach().clone())
            for (version, value), (_, _, buffer) in zip(last, self._buffers, strict=True)
            for now in [modifications(buffer)]
        ]
        return [value for _, value in self._of_last_chunk]

    def _copied(self, value: Any, name: str) -> Any:
        """Return the copy of a value, or the value itself if it holds no tensor or module."""
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
        if parametrize.is_parametrized(module):  # its own class, whose properties may be removed
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

    def _note(self, original: Any, copied: Any) -> Any:
        self._originals.append(original)
        self._copies[id(original)] = copied
        return copied

    def _alias(self, tensor: Tensor, name: str) -> Tensor:
        """Return a tensor on the same memory; it stays there if ``.data`` is replaced."""
        alias = tensor.detach().requires_grad_(tensor.requires_grad)
        self._tensors.append((name, alias, modifications(alias)))
        return alias


def _join(name: str, key: Any) -> str:
    return f"{name}.{key}" if name else str(key)
