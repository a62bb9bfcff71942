"""Several requests' data as one, one result as several: arrays, tables, lists, and dictionaries and tuples of these.

What is joined has the same ``kind``; rows are the first axis of an array, the rows of a table, the items of a list.
"""

from __future__ import annotations

import itertools
from typing import Any, Hashable, Optional


def kind(data: Any) -> Optional[Hashable]:
    """Return what has to be equal for data to be joined: names, types and shapes but for the rows; ``None``: never."""
    if isinstance(data, dict):
        parts = tuple((name, kind(part)) for name, part in data.items())
        return parts if parts and all(part is not None for _, part in parts) else None
    if isinstance(data, tuple):
        found = tuple(kind(part) for part in data)
        return found if found and None not in found else None
    if isinstance(data, list):
        return "list"
    if hasattr(data, "columns") and hasattr(data, "dtypes"):
        return "table", tuple(data.columns), tuple(map(str, data.dtypes))
    if hasattr(data, "dtype") and getattr(data, "ndim", 0) > 0:
        return type(data).__name__, str(data.dtype), tuple(data.shape[1:])
    return None


def count(data: Any) -> int:
    """Return how many rows there are; ``ValueError`` where the parts of *data* differ in that."""
    if isinstance(data, (dict, tuple)):
        found = {count(part) for part in (data.values() if isinstance(data, dict) else data)}
        if len(found) != 1:
            raise ValueError("the parts have {} rows".format(sorted(found)))
        return found.pop()
    return len(data)


def join(parts: "list[Any]") -> Any:
    """Return data of one kind as one, in the order of *parts*."""
    first = parts[0]
    if isinstance(first, dict):
        return {name: join([part[name] for part in parts]) for name in first}
    if isinstance(first, tuple):
        return tuple(join([part[place] for part in parts]) for place in range(len(first)))
    if isinstance(first, list):
        return list(itertools.chain.from_iterable(parts))
    if hasattr(first, "iloc"):
        import pandas as pd

        return pd.concat(parts, ignore_index=True)
    import numpy as np

    return np.concatenate(parts)


def split(result: Any, rows: "list[int]") -> "list[Any]":
    """Return the result for joined data piece by piece, *rows* in each; ``ValueError`` if it has not one item a row."""
    if isinstance(result, dict) and result:
        columns = [split(part, rows) for part in result.values()]
        return [dict(zip(result, parts)) for parts in zip(*columns)]
    ends = list(itertools.accumulate(rows))
    if isinstance(result, (str, bytes)) or getattr(result, "ndim", 1) == 0 or not hasattr(result, "__getitem__"):
        raise ValueError("a result of the type {} has no rows".format(type(result).__name__))
    if len(result) != ends[-1]:
        raise ValueError("the result has {} items for {} rows".format(len(result), ends[-1]))
    if hasattr(result, "iloc"):
        pieces = [result.iloc[end - length : end] for end, length in zip(ends, rows)]
        return [piece.reset_index(drop=True) for piece in pieces]
    return [result[end - length : end] for end, length in zip(ends, rows)]
