"""Arrays and tables as the tensors of the Open Inference Protocol: which datatype is which dtype, and what fits.

Only called where numpy is there, which models that declare tensors need anyway. ``BYTES`` are arrays of ``bytes``
objects when they come in (``text`` makes them ``str``), and may be of ``bytes`` or ``str`` when they go out.
"""

from __future__ import annotations

import math
from itertools import chain
from typing import Any, Mapping, Optional, Sequence

from stageway.serving.replies import BadRequestError
from stageway.serving.scorer import Tensor

DTYPES = {
    "BOOL": "bool",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "BYTES": "object",
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
TEXT_KINDS = "OSU"
DEEPEST = 32
"""How many lengths a shape may have, which is what every numpy takes."""
EMPTY = 2**27
"""How large the other lengths of an array without values may be, together."""
WIDEST = 2**27
"""How many bytes text may take where only an array of text will do, which gives every value the longest one's room."""


def datatype(dtype: Any) -> Optional[str]:
    """Return the protocol's name of a numpy or pandas *dtype*; ``None`` for times and others that it does not know."""
    import numpy as np

    try:
        plain = np.dtype(getattr(dtype, "numpy_dtype", dtype))
    except TypeError:
        # A table's own kinds: text and categories.
        return "BYTES" if str(dtype) in ("string", "str", "category") else None
    return "BYTES" if plain.kind in TEXT_KINDS else NAMES.get(plain.name)


def possible(shape: "Sequence[int]") -> bool:
    """Tell whether an array can have *shape*, whose lengths are not negative: numpy multiplies those around a 0 too."""
    return len(shape) <= DEEPEST and (0 not in shape or math.prod(one for one in shape if one) <= EMPTY)


def room(value: Any) -> int:
    """Return how many bytes numpy would take for the text in nested lists and objects; 0 where they hold none.

    It gives every value, also the numbers, the room of the longest text, so a small body can ask for gigabytes. The
    texts themselves, with ``dtype=object``, take no more than they have.
    """
    level = value if isinstance(value, list) else [value]
    count = longest = 0
    while level:
        try:
            # Nothing but numbers, told in a tenth of the time that a look at each would take.
            sum(level)
            count += len(level)
            break
        except (TypeError, OverflowError):
            pass
        texts = [len(one) for one in level if isinstance(one, (bytes, str))]
        longest = max(longest, 1, *texts) if texts else longest
        count += len(level)
        inner = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, (dict, list)))
        level = list(chain.from_iterable(inner))
    return 4 * count * longest


def of_array(name: str, sample: Any, *, enforced: bool = True) -> Optional[Tensor]:
    """Return the tensor that arrays like *sample* are: as many rows as a client sends, and its other lengths."""
    kind = datatype(sample.dtype)
    if kind is None or not sample.ndim:
        return None
    inner = [int(length) if enforced else -1 for length in sample.shape[1:]]
    return Tensor(name, kind, (-1, *inner))


def of_table(sample: Any) -> "Optional[tuple[Tensor, ...]]":
    """Return one tensor for each column of the table *sample*; ``None`` when one of them has no datatype."""
    found = []
    for name, dtype in sample.dtypes.items():
        kind = datatype(dtype)
        if kind is None:
            return None
        found.append(Tensor(str(name), kind, (-1, 1)))
    return tuple(found)


def fitted(given: "Mapping[str, Any]", inputs: "Sequence[Tensor]") -> "dict[str, Any]":
    """Return the arrays of *given* in the order and the dtypes of *inputs*, or say what does not fit.

    Numbers may come in any type that the declared one holds without loss, a column as ``[n]`` or ``[n, 1]``, and the
    only input under any name.
    """
    if len(inputs) == len(given) == 1:
        given = {inputs[0].name: next(iter(given.values()))}
    extra = [name for name in given if all(name != one.name for one in inputs)]
    if extra:
        known = ", ".join(repr(one.name) for one in inputs)
        raise BadRequestError("the model has no input {!r}; it takes {}".format(extra[0], known))
    found = {}
    for one in inputs:
        if one.name not in given:
            raise BadRequestError("the input {!r} is missing".format(one.name))
        found[one.name] = _shaped(_typed(given[one.name], one), one)
    return found


def _typed(array: Any, one: Tensor) -> Any:
    import numpy as np

    wanted = np.dtype(DTYPES[one.datatype])
    if array.dtype == wanted:
        return array
    if wanted.kind != "O" and array.dtype.kind != "O" and np.can_cast(array.dtype, wanted, "safe"):
        return array.astype(wanted)
    sentence = "the input {!r} is {}, the model takes {}"
    raise BadRequestError(sentence.format(one.name, datatype(array.dtype), one.datatype))


def _shaped(array: Any, one: Tensor) -> Any:
    shape = array.shape
    if one.shape == (-1, 1) and len(shape) == 1:
        return array.reshape(-1, 1)
    if len(shape) == len(one.shape) and all(need in (-1, have) for need, have in zip(one.shape, shape)):
        return array
    sentence = "the input {!r} has the shape {}, the model takes {}"
    raise BadRequestError(sentence.format(one.name, list(shape), list(one.shape)))


def text(array: Any) -> Any:
    """Return ``BYTES`` as an array of ``str``; the client is told when they are not UTF-8."""
    import numpy as np

    try:
        flat = [one.decode() if isinstance(one, bytes) else str(one) for one in array.ravel()]
    except UnicodeDecodeError:
        raise BadRequestError("the BYTES are not UTF-8 text") from None
    found = np.empty(array.shape, dtype=object)
    found[...] = np.array(flat, dtype=object).reshape(array.shape)
    return found


def table(given: "Mapping[str, Any]", dtypes: "Optional[Mapping[str, Any]]" = None) -> Any:
    """Return a table with one column for each of the arrays, which are ``[n]`` or ``[n, 1]``, as *dtypes* where given.

    ``BadRequestError`` when the columns are not equally long.
    """
    import pandas as pd

    lengths = {name: len(array) for name, array in given.items()}
    first = next(iter(lengths.values()), 0)
    for name, length in lengths.items():
        if length != first:
            sentence = "the input {!r} has {} rows where {!r} has {}"
            raise BadRequestError(sentence.format(name, length, next(iter(lengths)), first))
    columns = {}
    for name, array in given.items():
        flat = array.reshape(-1)
        columns[name] = text(flat) if flat.dtype.kind == "O" else flat
    frame = pd.DataFrame(columns, columns=list(given))
    return frame if dtypes is None else frame.astype({name: dtypes[name] for name in given if name in dtypes})


def columns(frame: Any) -> "dict[str, Any]":
    """Return the columns of a table as arrays of ``[n, 1]``."""
    return {str(name): frame[name].to_numpy().reshape(-1, 1) for name in frame.columns}


def array(value: Any, wanted: Optional[str] = None) -> Any:
    """Return a result as an array, in the datatype *wanted* where that is of its kind; ``TypeError`` if it is none."""
    import numpy as np

    found = np.asarray(value)
    if datatype(found.dtype) is None or (found.dtype.kind == "O" and not _holds_text(found)):
        raise TypeError("a result of {} is no tensor".format(type(value).__name__))
    dtype = np.dtype(DTYPES[wanted]) if wanted else found.dtype
    return found.astype(dtype) if np.can_cast(found.dtype, dtype, "same_kind") else found


def _holds_text(found: Any) -> bool:
    return all(isinstance(one, (str, bytes)) for one in found.ravel())
