"""Memory: copies of the storages in which tensors stand, to compare with and to put back."""

from __future__ import annotations

from collections.abc import Iterable
from ctypes import string_at

import torch

from forwardpass.errors import UsageError
from forwardpass.tensors.classes import classes_aside, dispatches

_SMALL = 1 << 14
"""Bytes of host memory that are kept and compared as Python's bytes: the call of an operator alone
would take longer."""
Copy = torch.UntypedStorage | bytes


class Memory:
    """What some storages held when they were kept. Tensors that share one share its copy."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[torch.UntypedStorage, Copy]] = {}
        self._others: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def keep(self, tensor: torch.Tensor) -> None:
        """Keep the memory of a tensor as it is now, unless it is kept already."""
        if tensor.device.type == "meta":
            return
        if not is_strided(tensor):
            self._others.setdefault(id(tensor), (tensor, tensor.detach().clone()))
            return
        storage = tensor.untyped_storage()
        key = storage._cdata  # pyright: ignore[reportPrivateUsage]
        if key not in self._kept:
            self._kept[key] = (storage, _bytes(storage) if _is_small(storage) else storage.clone())

    def keep_only(self, tensors: Iterable[torch.Tensor]) -> None:
        """Let go of the copies of all memory but that of these tensors."""
        kept = list(tensors)
        storages = {_key(tensor) for tensor in kept if is_strided(tensor)}
        self._kept = {key: pair for key, pair in self._kept.items() if key in storages}
        others = set(map(id, kept))
        self._others = {key: pair for key, pair in self._others.items() if key in others}

    def has(self, tensor: torch.Tensor) -> bool:
        """Whether the memory of a tensor was kept."""
        return is_strided(tensor) and _key(tensor) in self._kept

    def changed(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor whose memory was kept holds other bits now."""
        if _equal(*self._kept[_key(tensor)]):
            return False
        return not torch.equal(_bits(tensor), _bits(self.twin(tensor)))

    def twin(self, tensor: torch.Tensor) -> torch.Tensor:
        """The same view of the copy as `tensor` is of its memory."""
        return viewed(_storage(self._kept[_key(tensor)][1]), tensor)

    def restore(self) -> None:
        """Write back what has changed; versions do not move by it."""
        for storage, copy in self._kept.values():
            if not _equal(storage, copy):
                same = _storage(copy)
                if storage.nbytes() == same.nbytes():
                    storage.copy_(same)
        for tensor, copy in self._others.values():
            tensor.data = copy.data


class Copies:
    """Copies of tensors that alias each other as the originals do."""

    def __init__(self) -> None:
        self._storages: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}
        self._done: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def of(self, tensor: torch.Tensor, source: torch.UntypedStorage | None = None) -> torch.Tensor:
        """The copy of a tensor; of one that was copied before, the same object.

        Args:
            source: the storage to copy from, where that is not the tensor's own.
        """
        known = self._done.get(id(tensor))
        if known is not None:
            return known[1]
        with classes_aside():
            copy = self._copied(tensor, source)
        self._done[id(tensor)] = (tensor, copy)
        return copy

    def _copied(self, tensor: torch.Tensor, source: torch.UntypedStorage | None) -> torch.Tensor:
        kind = type(tensor)
        if dispatches(kind):
            return _by_its_class(tensor)
        if is_strided(tensor) and not tensor.is_quantized and tensor.device.type != "meta":
            storage = tensor.untyped_storage()
            key = storage._cdata  # pyright: ignore[reportPrivateUsage]
            if key not in self._storages:
                self._storages[key] = (storage, (source or storage).clone())
            copy = viewed(self._storages[key][1], tensor)
        else:
            copy = tensor.detach().clone()
        copy = copy if type(copy) is kind else copy.as_subclass(kind)
        if tensor.requires_grad:
            copy.requires_grad_()
            copy = copy if tensor.is_leaf else _no_leaf(copy)
        return copy


def _by_its_class(tensor: torch.Tensor) -> torch.Tensor:
    """The copy of a tensor in which others stand, which its class alone knows to copy."""
    name = type(tensor).__name__
    try:
        copy = tensor.detach().clone()
        came = f"gives a {type(copy).__name__}"
        if type(copy) is type(tensor):
            return copy.requires_grad_(tensor.requires_grad)
    except Exception as error:  # noqa: BLE001 - whatever its class raises
        came = f"raises {error!r}"
    raise UsageError(
        f"an input is a {name}, a class of tensors with a __torch_dispatch__ of its own, and must "
        f"be copied, since a pass may write it; its detach().clone() {came}, where a {name} was "
        "expected. Give plain tensors, and let forward wrap them"
    )


def _no_leaf(leaf: torch.Tensor) -> torch.Tensor:
    """A result of autograd's in the memory of a leaf, which a pass may write."""
    with torch.enable_grad():
        made = leaf.clone()
    made.data = leaf.data
    return made


def numbers(tensor: torch.Tensor) -> torch.Tensor:
    """A copy of what a tensor holds now, apart from autograd and its class."""
    with classes_aside():
        return tensor.detach().clone()


def same_numbers(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors, each in one storage, are alike in form and hold the same bits."""
    if not (is_strided(one) and is_strided(other)) or one.device.type == "meta":
        return False
    alike = (one.shape, one.dtype, one.device) == (other.shape, other.dtype, other.device)
    return alike and torch.equal(_bits(one), _bits(other))


def is_strided(tensor: torch.Tensor) -> bool:
    """Whether a tensor stands in one storage, by strides."""
    strided = tensor.layout is torch.strided and not tensor.is_nested
    return strided and (type(tensor) is torch.Tensor or not dispatches(type(tensor)))


def viewed(storage: torch.UntypedStorage, tensor: torch.Tensor) -> torch.Tensor:
    """`storage` through the dtype, offset, shape and strides of `tensor`."""
    if tensor.is_quantized:
        return tensor.detach().clone()
    empty = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    view = empty.set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())  # pyright: ignore[reportArgumentType, reportCallIssue]
    view = view.conj() if tensor.is_conj() else view
    return torch._neg_view(view) if tensor.is_neg() else view  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]


def _key(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]


def _is_small(storage: torch.UntypedStorage) -> bool:
    return storage.device.type == "cpu" and storage.nbytes() <= _SMALL


def _bytes(storage: torch.UntypedStorage) -> bytes:
    return string_at(storage.data_ptr(), storage.nbytes())


def _storage(copy: Copy) -> torch.UntypedStorage:
    if not isinstance(copy, bytes):
        return copy
    if not copy:
        return torch.UntypedStorage(0)
    return torch.frombuffer(bytearray(copy), dtype=torch.uint8).untyped_storage()


def _equal(one: torch.UntypedStorage, copy: Copy) -> bool:
    """Whether a storage holds the bytes of a copy."""
    if isinstance(copy, bytes):
        return _bytes(one) == copy
    size = one.nbytes()
    if size != copy.nbytes() or not size:
        return size == copy.nbytes()
    return torch.equal(_words(one), _words(copy))


def _words(storage: torch.UntypedStorage) -> torch.Tensor:
    """A storage as the widest integers that fill it."""
    dtype = torch.int64 if storage.nbytes() % 8 == 0 else torch.uint8
    empty = torch.empty(0, dtype=dtype, device=storage.device)
    return empty.set_(storage)  # pyright: ignore[reportArgumentType, reportCallIssue]


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """The elements as integers, so that NaN equals NaN and -0 is not 0."""
    if tensor.is_quantized:
        return tensor.int_repr()
    if tensor.dtype == torch.bool:
        return tensor
    tensor = tensor.resolve_conj().resolve_neg()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    sizes = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.view(sizes[tensor.element_size()])
