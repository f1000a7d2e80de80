"""Tables that forget what was put in longest ago. Pure."""

from collections import OrderedDict
from typing import Any


def forget_oldest(table: OrderedDict[Any, Any], most: int) -> None:
    """Have a table to which something was added hold so many items at most.

    A plain dict would search for its first item past all that were deleted before.
    """
    if len(table) > most:
        table.popitem(last=False)
