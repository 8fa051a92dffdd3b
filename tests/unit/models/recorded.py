"""What a CUDA graph does, on a CPU: the same kernels on the same addresses, and no Python.

Recording keeps every operation with the very tensors that it read and wrote; replaying runs the
operations again and puts their results into those tensors. Numbers that came from the host stay
what they were when the step was recorded, and a result that is not copied in time is overwritten:
what would break a captured graph breaks here too.
"""

from __future__ import annotations

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_READS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique")


class Recording(TorchDispatchMode):
    """Records the operations of its context."""

    def __init__(self):
        super().__init__()
        self._operations = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert not any(name in str(func) for name in _READS), f"{func} waits for the device"
        result = func(*args, **(kwargs or {}))
        writes = any(each.alias_info and each.alias_info.is_write for each in func._schema.returns)
        if writes or not _is_view(result, args):
            self._operations.append((func, args, kwargs or {}, None if writes else result))
        return result

    def replay(self):
        """Run the operations again."""
        for func, args, kwargs, written in self._operations:
            result = func(*args, **kwargs)
            if written is not None:
                pairs = zip(tree_leaves(written), tree_leaves(result), strict=True)
                for old, new in pairs:
                    if isinstance(old, Tensor):
                        old.copy_(new)


def _is_view(result, args):
    """Say whether a result lies in the memory of arguments, and so follows them by itself."""

    def places(tree):
        tensors = [each for each in tree_leaves(tree) if isinstance(each, Tensor)]
        return {each.untyped_storage().data_ptr() for each in tensors if not each.is_mkldnn}

    return places(result) <= places(args)


class Recorder:
    """A capture for `StaticDecoder`.

    Attributes:
        replays: How often each recorded step was replayed, in the order of recording.
    """

    def __init__(self):
        self.replays = []

    def __call__(self, run, rehearse):
        """Record a step."""
        outputs = []

        def recorded():
            recording = Recording()
            with recording:
                outputs[:] = [recording, run()]
            return outputs[1]

        rehearse(run)
        rehearse(recorded)
        recording, written = outputs
        number = len(self.replays)
        self.replays.append(0)

        def replay():
            self.replays[number] += 1
            recording.replay()
            return written.clone()

        return replay
