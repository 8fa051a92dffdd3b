"""A CUDA device that is none: counts, on a CPU, what would make a real one wait.

Under `watch`, tensors that decoding code asks for on the device "cuda" lie on the CPU, carry the
type `OnDevice` and say that they are on CUDA. Every look at their values is a read. Every copy
of pageable host values to them is a blocking upload. Mixing them with host tensors is an error,
as it is on a GPU. So decoding code runs the very path that it takes on a GPU, to the same
tokens, and the contract "one read a round" is a test that needs none.
"""

from __future__ import annotations

import contextlib
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

from specbench.clock import CpuClock
from specbench.models.base import CAUSAL, View
from specbench.models.pair import ModelPair

CUDA = torch.device("cuda", 7)
"""A device that no test uses for real: tables that are kept by device must not be mixed up."""
CPU = torch.device("cpu")

_READS = {
    *("tolist", "item", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__"),
    *("__contains__", "equal", "allclose", "nonzero", "argwhere", "unique", "_unique2"),
    *("unique_consecutive", "masked_select", "multinomial", "bincount", "is_nonzero"),
    *("unique_dim", "__array__", "_is_zerotensor", "histc"),
}
_MOVERS = {"copy_", "to"}


class OnDevice(Tensor):
    """A CPU tensor that stands for one on a CUDA device."""


class Event:
    """Stands in for `torch.cuda.Event`: waiting for one is a read."""

    def record(self, stream: object = None) -> None:
        """Do nothing."""

    def synchronize(self) -> None:
        """Count a read."""
        assert _ACTIVE is not None
        _ACTIVE.note(_ACTIVE.reads, "Event.synchronize")


_ACTIVE: Watch | None = None


@dataclass(frozen=True)
class Traffic:
    """What would have waited.

    Attributes:
        reads: Looks at values, counted by place.
        uploads: Blocking copies of host values, counted by place.
    """

    reads: Counter[str]
    uploads: Counter[str]


class Watch(TorchFunctionMode):
    """Plays the device, and counts.

    Attributes:
        reads: Looks at values, counted by place.
        uploads: Blocking copies of host values, counted by place.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reads: Counter[str] = Counter()
        self.uploads: Counter[str] = Counter()
        self._resting = 0

    @contextlib.contextmanager
    def rest(self) -> Iterator[None]:
        """Count nothing and play nothing inside, as in a model's own code."""
        self._resting += 1
        try:
            yield
        finally:
            self._resting -= 1

    def note(self, counter: Counter[str], what: str) -> None:
        """Count an event at the innermost line of specbench's own code."""
        for frame in reversed(traceback.extract_stack()):
            if "/specbench/" in frame.filename and "transfer.py" not in frame.filename:
                name = frame.filename.rsplit("/specbench/", 1)[1]
                counter[f"{name}:{frame.lineno} {what}"] += 1
                return
        counter[what] += 1

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run one function of torch as the device would."""
        kwargs = dict(kwargs or {})
        if self._resting:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        flat = [*tree_flatten((args, kwargs))[0]]
        here = any(isinstance(one, OnDevice) for one in flat)
        if name == "__get__" and here:
            owner = getattr(func, "__self__", None)
            if owner is Tensor.device:
                return CUDA
            if owner is Tensor.is_cuda:
                return True
            if owner is Tensor.is_cpu:
                return False
        asked = [torch.device(one) for one in flat if _names_a_device(one)]
        target = asked[0].type if asked else None
        pinned = bool(kwargs.pop("pin_memory", False)) or name == "pin_memory"
        self._charge(name, args, kwargs, here, target)
        args, kwargs = tree_map(lambda one: _plain(one), (args, kwargs))
        if name == "pin_memory":
            result: Any = args[0].clone()
        else:
            with torch._C.DisableTorchFunctionSubclass():
                result = func(*args, **kwargs)
        if name in ("copy_", "__setitem__") or target == "cpu":
            return result
        if here or target == "cuda":
            return tree_map(_on_device, result)
        if pinned:
            result._pinned = True
        return result

    def _charge(
        self, name: str, args: tuple[Any, ...], kwargs: Any, here: bool, target: str | None
    ) -> None:
        """Count what would wait, and refuse what cannot be."""
        if name in _READS and here:
            self.note(self.reads, name)
        if name == "where" and here and len(args) == 1:
            self.note(self.reads, "where")
        if name == "repeat_interleave" and here and isinstance(args[-1], Tensor):
            self.note(self.reads, name)
        if name in ("__getitem__", "__setitem__") and here:
            self._charge_index(name, args)
            return
        if target == "cuda" and not here and name in ("tensor", "as_tensor"):
            self.note(self.uploads, name)
        if name == "to" and here and target == "cpu":
            self.note(self.reads, "to")
        first = args[0] if args else None
        if name == "to" and target == "cuda" and not here and not _staged(first, kwargs):
            self.note(self.uploads, "to")
        if name == "copy_" and len(args) > 1 and isinstance(args[1], Tensor):
            into, source = isinstance(first, OnDevice), isinstance(args[1], OnDevice)
            if source and not into and not _staged(first, kwargs):
                self.note(self.reads, "copy_")
            if into and not source and args[1].ndim and not _staged(args[1], kwargs):
                self.note(self.uploads, "copy_")
        if here and name not in _MOVERS:
            tensors = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, Tensor)]
            strays = [one for one in tensors if not isinstance(one, OnDevice) and one.ndim]
            assert not strays, f"{name} mixes tensors of host and device"

    def _charge_index(self, name: str, args: tuple[Any, ...]) -> None:
        parts = args[1] if isinstance(args[1], tuple) else (args[1],)
        advanced = [part for part in parts if isinstance(part, (Tensor, list))]
        for part in advanced:
            if isinstance(part, list) or (not isinstance(part, OnDevice) and part.ndim):
                self.note(self.uploads, f"{name} by a host index")
            elif part.dtype == torch.bool:
                self.note(self.reads, f"{name} by a mask")
            elif part.ndim == 0:
                self.note(self.reads, f"{name} by a single index, which torch reads")
        if name == "__setitem__" and advanced and not isinstance(args[2], Tensor):
            self.note(self.uploads, "__setitem__ of a number")


def _staged(tensor: Any, kwargs: Any) -> bool:
    return bool(getattr(tensor, "_pinned", False) and kwargs.get("non_blocking"))


def _names_a_device(one: Any) -> bool:
    return isinstance(one, torch.device) or (isinstance(one, str) and one in ("cpu", "cuda:7"))


def _plain(one: Any) -> Any:
    return CPU if _names_a_device(one) else one


def _on_device(one: Any) -> Any:
    if isinstance(one, Tensor) and not isinstance(one, OnDevice):
        return one.as_subclass(OnDevice)
    return one


@contextlib.contextmanager
def watch() -> Iterator[Watch]:
    """Play a CUDA device inside, and count what would wait for it."""
    global _ACTIVE
    fakes = {
        (torch.cuda, "Event"): Event,
        (torch.cuda, "current_stream"): lambda device=None: None,
        (torch, "Generator"): _generator(torch.Generator),
    }
    originals = {place: getattr(*place) for place in fakes}
    for (module, name), fake in fakes.items():
        setattr(module, name, fake)
    _ACTIVE = Watch()
    try:
        with _ACTIVE:
            yield _ACTIVE
    finally:
        _ACTIVE = None
        for (module, name), original in originals.items():
            setattr(module, name, original)


def _generator(kind: Any) -> Any:
    return lambda device=None: kind()


class DeviceModel:
    """A model of the CPU behind the port of one on CUDA."""

    device = CUDA

    def __init__(self, model: Any) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def under(self, law: Any) -> Any:
        """Return the model under a law, on the same device."""
        return type(self)(self._model.under(law))

    def forward(self, tokens: Tensor, cache: Any, view: View = CAUSAL) -> Any:
        """Feed tokens that lie on the device; the model's own work is not watched."""
        assert isinstance(tokens, OnDevice), "tokens that are not on the device"
        assert _ACTIVE is not None
        mask, taps = view.mask, view.taps
        if mask is not None and not isinstance(mask.ancestors, OnDevice):
            _ACTIVE.note(_ACTIVE.uploads, "a mask of the host")
        with _ACTIVE.rest():
            mask = mask and type(mask)(_host(mask.offsets), _host(mask.ancestors))
            logits = self._model.forward(_host(tokens), cache, view._replace(mask=mask))
            if taps is not None:
                taps.states = [_on_device(state) for state in taps.states]
            return _on_device(logits)

    def head(self, states: Tensor, *, normed: bool = True) -> Any:
        """Apply the LM head to states that lie on the device."""
        assert isinstance(states, OnDevice), "states that are not on the device"
        assert _ACTIVE is not None
        with _ACTIVE.rest():
            return _on_device(self._model.head(_host(states), normed=normed))


class DeviceHead(DeviceModel):
    """A head of the CPU behind the port of one on CUDA."""

    def features(self, states: tuple[Tensor, ...]) -> Tensor:
        """Return the features of states; the head's own work is not watched."""
        return self._alone(self._model.features, tuple(_host(state) for state in states))

    def inputs(self, tokens: Tensor, features: Tensor) -> Tensor:
        """Join tokens that lie on the device with features."""
        assert isinstance(tokens, OnDevice), "tokens that are not on the device"
        return self._alone(self._model.inputs, _host(tokens), _host(features))

    def remember(self, states: tuple[Tensor, ...], cache: Any) -> None:
        """Keep states that lie on the device as a block drafter's context."""
        assert all(isinstance(state, OnDevice) for state in states), "states that are not there"
        assert _ACTIVE is not None
        with _ACTIVE.rest():
            self._model.remember(tuple(_host(state) for state in states), cache)

    def embed_drafted(self, tokens: Tensor) -> Tensor:
        """Return the embeddings of tokens that lie on the device."""
        assert isinstance(tokens, OnDevice), "tokens that are not on the device"
        return self._alone(self._model.embed_drafted, _host(tokens))

    def _alone(self, compute: Any, *values: Any) -> Any:
        assert _ACTIVE is not None
        with _ACTIVE.rest():
            return _on_device(compute(*values))


def _host(tensor: Tensor) -> Tensor:
    return tensor.as_subclass(Tensor)


def on_device(models: ModelPair) -> ModelPair:
    """Return a pair whose models claim to be on CUDA."""
    image = models.image
    if image is not None and getattr(image, "codebook", None) is not None:
        image = replace(image, codebook=_on_device(image.codebook))
    return replace(
        models,
        target=DeviceModel(models.target),
        draft=DeviceModel(models.draft) if models.draft is not None else None,
        more_drafts=tuple(DeviceModel(model) for model in models.more_drafts),
        head=DeviceHead(models.head) if models.head is not None else None,
        image=image,
        _caches={},
    )


class CountingClock(CpuClock):
    """Notes, for every round, what would have waited in it.

    Args:
        watched: Who counts.

    Attributes:
        traffic: One entry for each round.
    """

    def __init__(self, watched: Watch) -> None:
        super().__init__()
        self._watched = watched
        self.traffic: list[Traffic] = []

    def start(self) -> None:
        """Begin a generation."""
        self._reads: Counter[str] = Counter(self._watched.reads)
        self._uploads: Counter[str] = Counter(self._watched.uploads)
        super().start()

    def mark(self) -> None:
        """Close a round."""
        super().mark()
        reads, uploads = Counter(self._watched.reads), Counter(self._watched.uploads)
        self.traffic.append(Traffic(reads - self._reads, uploads - self._uploads))
        self._reads, self._uploads = reads, uploads
