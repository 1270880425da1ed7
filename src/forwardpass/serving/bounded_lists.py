"""Lists of JSON of which no more elements are made than may come.

msgspec holds a list against its `max_length` when all of it is there: 64 MiB of `1,1,…` are 33
million objects by then. Of an object that stands in JSON as a list it knows how many fields there
are, and stops at one more.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

TOO_LONG: Final = "Expected `array` of at most length "
"""So begins what a decoder says of a list with more elements than it may have."""


@cache
def list_of(kind: Any, most: int) -> Any:
    """The type of a list of so many at most; its `elements` are of this kind.

    It takes about 15 us for each that there may be to make it.
    """
    fields = [(f"at{place}", kind | UnsetType, UNSET) for place in range(most)]
    return msgspec.defstruct("List", fields, array_like=True, forbid_unknown_fields=True)


def elements(read: msgspec.Struct) -> list[Any]:
    """Those of a list that was read as `list_of` some."""
    return [one for one in msgspec.structs.astuple(read) if one is not UNSET]
