"""Cards without cards: tensors on cuda have a shape, a type and a device, those on the CPU are real.

What runs inside `fake_cards` meets the device mismatches that it would meet on cards, and the bytes that tensors hold
are counted for each. Integers and masks that follow from positions alone are computed beside, on the CPU, so that what
they decide is decided rightly. Of all other numbers a card has none: a float that is asked for is 0, a truth true.
Operations whose shape follows from such numbers raise `torch._subclasses.fake_tensor.DynamicOutputShapeException`.
"""

import weakref
from collections import Counter
from contextlib import contextmanager

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

aten = torch.ops.aten
NUMBERS = {Tensor.__int__: int, Tensor.__index__: int, Tensor.__float__: float, Tensor.__bool__: bool}
GUARD = "not linked with support for cuda devices"
OPERATORS = {"__invert__": "bitwise_not"}
EMPTY = (aten.empty.memory_format, aten.new_empty.default, aten.empty_like.default)
COMPOSITE = "CompositeImplicitAutograd"
MOST_KNOWN = 2**23  # numbers of a tensor that is computed beside


@contextmanager
def fake_cards():
    """Let tensors on cuda be fake inside; yield what counts their bytes."""
    torch._C._ensureCUDADeviceGuardSet()
    lazy_init, torch.cuda._lazy_init = torch.cuda._lazy_init, lambda: None
    try:
        with _Functions(), Card() as card:
            yield card
    finally:
        torch.cuda._lazy_init = lazy_init


class Card(TorchDispatchMode):
    """Tensors on cuda are fake; their bytes are counted: now, and at most, of each device."""

    def __init__(self):
        super().__init__()
        self.bytes, self.peak, self.asked = Counter(), Counter(), Counter()
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._known = WeakTensorKeyDictionary()
        self._held = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        flat = tree_flatten((args, kwargs))[0]
        tensors = [part for part in flat if isinstance(part, Tensor)]
        fakes = [tensor for tensor in tensors if isinstance(tensor, FakeTensor)]
        device = next((part for part in flat if isinstance(part, torch.device)), torch.device("cpu"))
        if not fakes and device.type != "cuda":
            return func(*args, **kwargs)
        if func in (aten._local_scalar_dense.default, aten.item.default):
            return self._number(args[0])
        if func is aten.equal.default:
            return self._equal(*args)
        if func.namespace != "prim" and torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), COMPOSITE):
            with self:  # in inference mode such operations come whole
                return func.decompose(*args, **kwargs)
        if torch.Tag.nondeterministic_seeded in func.tags and func._schema.is_mutable:
            self._known.pop(args[0], None)
            return args[0]  # drawn anew
        if func is aten.nonzero.default and args[0] not in self._known:  # at most all
            with self:
                return torch.empty(args[0].numel(), args[0].ndim, dtype=torch.int64, device=args[0].device)
        known = self._beside(func, tensors, args, kwargs)
        if fakes and func is aten._to_copy.default and kwargs.get("device") is not None and device.type == "cpu":
            return self._home(args[0], known, kwargs.get("dtype"))
        if func is aten.copy_.default and not isinstance(args[0], FakeTensor):
            return args[0].copy_(self._home(args[1], self._known.get(args[1]), None))
        result = self._run(func, args, kwargs, known)
        self._note(result, known)
        return result

    def _run(self, func, args, kwargs, known):
        try:
            with self._fake:
                return func(*args, **kwargs)
        except torch._subclasses.fake_tensor.DynamicOutputShapeException:
            if known is None:
                raise
            where = next(part.device for part in tree_flatten((args, kwargs))[0] if isinstance(part, FakeTensor))
            with self._fake:
                return tree_map(
                    lambda part: torch.empty_like(part, device=where) if isinstance(part, Tensor) else part, known
                )

    def _beside(self, func, tensors, args, kwargs):
        """Return what an operation gives on the CPU, None where its numbers are not known."""
        unknown = [tensor for tensor in tensors if isinstance(tensor, FakeTensor) and tensor not in self._known]
        random = torch.Tag.nondeterministic_seeded in func.tags
        if unknown or random or any(tensor.numel() > MOST_KNOWN for tensor in tensors):
            for tensor in tensors if func._schema.is_mutable else ():
                self._known.pop(tensor, None)
            return None

        def real(part):
            if isinstance(part, torch.device):
                return torch.device("cpu")
            return self._known[part] if isinstance(part, FakeTensor) else part

        result = func(*tree_map(real, list(args)), **tree_map(real, kwargs))
        most = 0 if func in EMPTY else MOST_KNOWN  # what is left empty holds no numbers
        large = any(isinstance(part, Tensor) and part.numel() > most for part in tree_flatten(result)[0])
        return None if large else result

    def _note(self, result, known):
        beside = tree_flatten(known)[0]
        for place, tensor in enumerate(tree_flatten(result)[0]):
            if not isinstance(tensor, FakeTensor) or tensor.device.type != "cuda":
                continue
            if known is not None:
                self._known[tensor] = beside[place]
            storage = tensor.untyped_storage()
            if (key := storage._cdata) not in self._held:
                self._held.add(key)
                self._count(tensor.device, storage.nbytes())
                weakref.finalize(storage, self._free, key, tensor.device, storage.nbytes())

    def _count(self, device, size):
        self.bytes[device] += size
        self.peak[device] = max(self.peak[device], self.bytes[device])

    def _free(self, key, device, size):
        self._held.discard(key)
        self.bytes[device] -= size

    def _number(self, tensor):
        self.asked["numbers"] += 1
        if tensor in self._known:
            return self._known[tensor].item()
        return True if tensor.dtype == torch.bool else 0.0 if tensor.is_floating_point() else 1

    def _equal(self, one, other):
        assert one.device == other.device, f"{one.device} compared with {other.device}"
        self.asked["numbers"] += 1
        if one in self._known and other in self._known:
            return torch.equal(self._known[one], self._known[other])
        return one.shape == other.shape

    def _home(self, tensor, known, dtype):
        self.asked["copies"] += 1
        return torch.ones(tensor.shape, dtype=dtype or tensor.dtype) if known is None else known.clone()


class _Functions(TorchFunctionMode):
    """Fused attention makes its outputs alone; what torch does with a guard of the device is done without one."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.tensor and torch.device(kwargs.get("device") or "cpu").type == "cuda":
            return torch.tensor(*args, **kwargs | {"device": "cpu"}).to(kwargs["device"])
        if func is Tensor.to and len(args) == 2 and isinstance(args[1], FakeTensor):
            return args[0].to(args[1].device, args[1].dtype)
        if not args or not isinstance(args[0], FakeTensor):
            return func(*args, **kwargs)
        if func is Tensor.new_tensor:
            return torch.tensor(args[1], dtype=kwargs.get("dtype", args[0].dtype)).to(
                kwargs.get("device", args[0].device)
            )
        if func in NUMBERS:
            return NUMBERS[func](args[0].item())
        if func is Tensor.__getitem__:
            return _indexed(*args)
        if func is Tensor.__setitem__:
            tensor, index, value = args
            value = value if isinstance(value, Tensor) else torch.tensor(value, dtype=tensor.dtype).to(tensor.device)
            if _is_mask(index) and value.numel() == 1:
                return tensor.masked_fill_(index, value)
            part, tensors = _sliced(tensor, index)
            return aten.index_put_(part, tensors, value) if tensors else aten.copy_(part, value)
        if func is torch.nn.functional.scaled_dot_product_attention:
            query, key, value = args[:3]
            devices = {tensor.device for tensor in (query, key, value)}
            assert len(devices) == 1, f"attention over {devices}"
            return query.new_empty(*query.shape[:-1], value.shape[-1])
        try:
            return func(*args, **kwargs)
        except RuntimeError as error:
            if GUARD not in str(error):
                raise
            return getattr(aten, OPERATORS.get(func.__name__, func.__name__))(*args, **kwargs)


def _indexed(tensor, index):
    part, tensors = _sliced(tensor, index)
    return aten.index(part, tensors) if tensors else part


def _sliced(tensor, index):
    """Return a view of a tensor by all of an index but its tensors, and these, with None where there is none."""
    index = index if isinstance(index, tuple) else (index,)
    index = tuple(
        torch.tensor(part, dtype=torch.long)
        if isinstance(part, list) and not any(isinstance(x, bool) for x in part)
        else part
        for part in index
    )
    dims = sum(part.ndim if _is_mask(part) else 1 for part in index if part is not None and part is not Ellipsis)
    at = next((place for place, part in enumerate(index) if part is Ellipsis), len(index))
    index = (*index[:at], *[slice(None)] * (tensor.ndim - dims), *index[at + 1 :])
    tensors, dim = [], 0
    for part in index:
        if isinstance(part, Tensor):
            indices = aten.nonzero(part).unbind(1) if _is_mask(part) else [part]
            tensors += indices
            dim += len(indices)
        elif part is None:
            tensor, dim = tensor.unsqueeze(dim), dim + 1
            tensors.append(None)
        elif isinstance(part, slice):
            tensor, dim = aten.slice(tensor, dim, part.start, part.stop, part.step or 1), dim + 1
            tensors.append(None)
        else:
            tensor = tensor.select(dim, int(part))
    return tensor, tensors if any(part is not None for part in tensors) else []


def _is_mask(part):
    return isinstance(part, Tensor) and part.dtype == torch.bool
