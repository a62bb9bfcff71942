"""Our stand-in for inference_schema and the package itself: one table of cases, and both do the same."""

from __future__ import annotations

import datetime
import importlib
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stageway.serving.standins.inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType

PACKAGE, OURS = "inference_schema", "stageway.serving.standins.inference_schema"
DAY = datetime.datetime(2020, 1, 2, 3, 4, 5)
RECORD = np.array([(1, 2.5, "a")], dtype=[("i", "i4"), ("f", "f8"), ("s", "U4")])
NESTED = np.array([(1, [1.0, 2.0])], dtype=[("i", "i4"), ("v", "f8", (2,))])
TABLE = pd.DataFrame({"a": [1], "b": ["x"], "c": [1.5]})
TIMED = pd.DataFrame({"a": [1], "d": [True], "t": [pd.Timestamp("2020-01-02")], "l": [pd.Timedelta(5, "s")]})


def _named(package: str) -> SimpleNamespace:
    def find(module: str, name: str) -> Any:
        return getattr(importlib.import_module(f"{package}.{module}"), name)

    kinds = "parameter_types."
    return SimpleNamespace(
        N=find(kinds + "numpy_parameter_type", "NumpyParameterType"),
        P=find(kinds + "pandas_parameter_type", "PandasParameterType"),
        S=find(kinds + "standard_py_parameter_type", "StandardPythonParameterType"),
        A=find(kinds + "abstract_parameter_type", "AbstractParameterType"),
        input=find("schema_decorators", "input_schema"),
        output=find("schema_decorators", "output_schema"),
        util=importlib.import_module(f"{package}.schema_util"),
    )


THEIRS, MINE = _named(PACKAGE), _named(OURS)
pytestmark = [
    pytest.mark.filterwarnings("ignore:apply_column_names:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:no explicit representation of timezones:UserWarning"),
]


def _made(kinds: SimpleNamespace, of: tuple[Any, ...]) -> Any:
    """Make a parameter type of ("N", sample, options); samples may hold further ones."""
    name, sample, *options = of
    return getattr(kinds, name)(_inside(kinds, sample), **(options[0] if options else {}))


def _inside(kinds: SimpleNamespace, sample: Any) -> Any:
    if isinstance(sample, tuple) and sample and sample[0] in ("N", "P", "S"):
        return _made(kinds, sample)
    if isinstance(sample, dict):
        return {name: _inside(kinds, item) for name, item in sample.items()}
    return [_inside(kinds, item) for item in sample] if isinstance(sample, list) else sample


def _outcome(call: Any) -> Any:
    """Return what *call* gives, in a form that can be compared; every error is one: refused."""
    try:
        value = call()
    except Exception:  # noqa: BLE001
        return "refused"
    return _comparable(value)


def _comparable(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return ("array", str(value.dtype), value.shape, repr(value.tolist()))
    if isinstance(value, pd.DataFrame):
        types = [str(dtype) for dtype in value.dtypes]
        return ("table", list(value.columns), list(value.index), types, repr(value.values.tolist()))
    if isinstance(value, dict):
        return {name: _comparable(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_comparable(item) for item in value]
    # The package says UTC by the machine's own zone.
    return (type(value), value.timestamp() if isinstance(value, datetime.datetime) else value)


SAMPLES: list[tuple[Any, ...]] = [
    *[("S", one) for one in (1, 1.5, True, "x", b"ab", bytearray(b"x"), None, 1j, {1, 2}, range(3))],
    *[("S", one) for one in ([], [1, 2], [[1.5]], [1, "a"], [1.5, 1], [1, None], [None, 1], (1, 2), [[1], ["a"]])],
    *[("S", one) for one in ({}, {"a": 1}, {"a": [1]}, {"a": None}, [{"a": 1}], [{"a": 1}, {"b": 2}])],
    *[("S", one) for one in (DAY.date(), DAY, DAY.replace(tzinfo=datetime.UTC), DAY.time(), datetime.timedelta(1))],
    ("S", {"a": ("S", 1)}),
    ("S", [("S", {"a": ("S", 1.0)})]),
    ("S", {"a": ("N", np.array([[1.0]])), "b": ("P", pd.DataFrame({"c": [1]}))}),
    *[
        ("N", np.array([1], dtype=kind))
        for kind in ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "g", "b1", "c16"]
    ],
    *[("N", np.array([5], dtype=f"m8[{unit}]")) for unit in ["Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns"]],
    *[("N", np.array([[1.5, 2]])), ("N", np.array(["a"])), ("N", np.array([b"a"])), ("N", np.array([{"a": 1}]))],
    *[("N", np.array([1, "a"], dtype=object)), ("N", np.array([DAY], dtype=object)), ("N", np.array([DAY], "M8[s]"))],
    *[("N", np.zeros((1, 3, 4))), ("N", np.zeros((0, 3))), ("N", np.zeros((3, 1))), ("N", RECORD), ("N", NESTED)],
    *[("N", [1]), ("N", None), ("N", np.float64(1)), ("N", np.array(3.5))],
    *[("P", one, {"orient": orient}) for one in (TABLE, TIMED) for orient in ["records", "split", "columns", "index"]],
    *[("P", one, {"orient": orient}) for one in (TABLE, TIMED) for orient in ("values", "table", "nope")],
    *[("P", pd.DataFrame({"a": [1]}), {"orient": orient}) for orient in ("split", "values")],
    *[("P", pd.DataFrame({"a": [one]})) for one in ([1, 2], {"b": 1}, None, datetime.date(2020, 1, 2))],
    *[("P", pd.DataFrame()), ("P", pd.DataFrame([[1, 2]])), ("P", pd.DataFrame({"a": [1, None]})), ("P", {"a": 1})],
    *[("P", pd.DataFrame({"a": pd.Series(["x"], dtype="category")})), ("P", pd.DataFrame({"a": [1]}, index=["r"]))],
    ("P", pd.DataFrame({"a": pd.Series([1], dtype="Int64")})),
    ("P", pd.DataFrame({"a": [1]}, index=["r"]), {"orient": "index"}),
    ("P", pd.DataFrame({"a": [pd.Timestamp("2020-01-02", tz="UTC")]})),
]


@pytest.mark.parametrize("of", SAMPLES, ids=repr)
def test_swagger_is_the_same(of: tuple[Any, ...]) -> None:
    def described(kinds: SimpleNamespace) -> Any:
        kind = _made(kinds, of)
        return [json.dumps(kind.input_to_swagger(), sort_keys=True), kind.supported_versions()]

    assert _outcome(lambda: described(MINE)) == _outcome(lambda: described(THEIRS))


ROW = [{"a": 1, "b": "y", "c": 2}]
FLOATS, LOOSE = np.array([[1.0, 2.0]]), {"enforce_shape": False}
CONVERSIONS: list[tuple[tuple[Any, ...], list[Any]]] = [
    (("N", FLOATS), [[[1, 2]], [[1, 2], [3, 4]], [], [[]], [[1, 2, 3]], [1, 2], 3, "x", None, {"a": 1}, "[[1,2]]"]),
    (("N", FLOATS), [[["1", "2"]], [["a", "b"]], [[1, None]], [[1], [2, 3]], [[True, False]], FLOATS]),
    (("N", FLOATS, LOOSE), [[[1, 2, 3]], [1, 2], 3, [], [[1], [2, 3]]]),
    (("N", FLOATS, {"enforce_column_type": False}), [[[1, 2]], [["a", "b"]], [[1, 2, 3]]]),
    (("N", np.array([[1, 2]])), [[[1.5, 2]], [["1", "2"]], [[1, None]], [["1.5", 2]], [[2**70, 1]]]),
    (("N", np.array([1])), [[1], [1, 2], [[1]], 5]),
    (("N", np.array([True])), [[0, 2], ["a"], [None]]),
    (("N", np.array(["a"])), [["abc"], [1], [None]]),
    (("N", np.array([1, "a"], dtype=object)), [[1, "b"], ["x"]]),
    (("N", np.array(["2020-01-02"], "M8[D]")), [["2020-01-03"], ["x"], [5]]),
    (("N", np.array([DAY], "M8[s]")), [["2020-01-03 04:05:06.000000"], ["2020-01-03T04:05:06Z"], ["2020-01-03"]]),
    (("N", np.array([5], "m8[s]")), [["5 seconds"], ["5 Seconds"], ["2 days"], ["5 s"], ["5"], [5], ["P1D"]]),
    (("N", RECORD), [[{"i": 1, "f": 2, "s": "b"}], [{"i": 1}], [[1, 2, "b"]], [{"i": "x", "f": 2, "s": "b"}]]),
    (("N", RECORD), [[{"i": 1, "f": 2, "s": "toolong", "extra": 1}]]),
    (("N", NESTED), [[{"i": 1, "v": [1, 2]}]]),
    (("N", np.zeros((1, 2, 3))), [np.zeros((5, 2, 3)).tolist(), np.zeros((5, 2, 2)).tolist(), [[0.0] * 3]]),
    (("P", TABLE), [ROW, ROW * 2, [{"c": 2, "b": "y", "a": 1}], [{"a": 1, "b": "y"}], [{**ROW[0], "z": 9}], TABLE]),
    (("P", TABLE), [[{"a": "1", "b": 5, "c": "2.5"}], [{"a": 1.5, "b": "y", "c": 2}], [{"a": "q", "b": "", "c": 2}]]),
    (("P", TABLE), [[{"a": None, "b": None, "c": None}], [[1, "y", 2]], [[1, 2]], {"a": [1], "b": ["y"], "c": [2]}]),
    (("P", TABLE), [[{"a": 1, "b": None, "c": None}], [{"a": True, "b": True, "c": False}]]),
    (("P", TABLE), [ROW[0], [], {}, 3, "x", None, [1, 2, 3], {"data": ROW}]),
    (("P", TABLE, LOOSE), [[{"a": 1, "b": "y"}], [{**ROW[0], "z": 9}], [], [[1, "y", 2, 3]]]),
    (("P", TABLE, {"enforce_column_type": False}), [[{"a": "q", "b": "y", "c": 2}], ROW, [[1, "y", 2]]]),
    (("P", TABLE, {"apply_column_names": True}), [[[1, "y", 2]], ROW, [[1, 2]]]),
    (("P", TABLE, {"orient": "split"}), [{"columns": ["a", "b", "c"], "index": [0], "data": [[1, "y", 2]]}, ROW]),
    (("P", TABLE, {"orient": "split"}), [{"columns": ["a", "b", "c"], "data": [[1, "y", 2]]}, {"data": [[1, "y", 2]]}]),
    (("P", TABLE, {"orient": "columns"}), [{"a": {"0": 1}, "b": {"0": "y"}, "c": {"0": 2}}, ROW]),
    (("P", TABLE, {"orient": "index"}), [{"0": ROW[0]}, {"r1": ROW[0], "r2": ROW[0]}, ROW]),
    (("P", TABLE, {"orient": "values"}), [[[1, "y", 2]], [[1, 2]]]),
    (("P", TABLE, {"orient": "values", "apply_column_names": True}), [[[1, "y", 2]]]),
    (("P", pd.DataFrame({"t": [pd.Timestamp(DAY)]})), [[{"t": "2020-01-03"}], [{"t": "x"}], [{"t": None}]]),
    (("P", pd.DataFrame({"t": [pd.Timestamp(DAY)]})), [[{"t": "2020-01-03T04:05:06Z"}], [{"t": 1577923200000}]]),
    (("P", pd.DataFrame({"t": [pd.Timedelta(5, "s")]})), [[{"t": "5 s"}], [{"t": 5}], [{"t": "x"}]]),
    (("P", pd.DataFrame({"t": [True]})), [[{"t": 0}], [{"t": "False"}], [{"t": None}]]),
    (("P", pd.DataFrame({"t": [1.0]})), [[{"t": "NaN"}, {"t": None}]]),
    (("P", pd.DataFrame([[1, 2]])), [[{"0": 1, "1": 2}], [[1, 2]]]),
    (("P", pd.DataFrame({"a": [[1, 2]]})), [[{"a": [3]}]]),
    (("P", pd.DataFrame({"a": pd.Series(["x"], dtype="category")})), [[{"a": "x"}], [{"a": "y"}]]),
    (("P", pd.DataFrame({"a": pd.Series([1], dtype="Int64")})), [[{"a": 2}], [{"a": None}]]),
    (("S", 1), [2, 2.5, "3", True, None, [1]]),
    (("S", 1.5), [2, 2.5, "3", None]),
    (("S", "x"), [1, "y", None, ""]),
    (("S", True), [True, 0, "x"]),
    (("S", b"ab"), ["YWI=", "!!", 1, b"x"]),
    (("S", [1]), [[1], [1.5, "a"], "x", {}, None, (1,)]),
    (("S", (1,)), [[1, 2], "x"]),
    (("S", {"a": 1}), [{"a": 2}, {}, {"a": "x"}, [1], "x"]),
    (("S", DAY), ["2020-01-03 04:05:06.000000 +0000", "2020-01-03T04:05:06Z", "2020-01-03", "x", 5]),
    (("S", DAY.time()), ["05:06", "05:06:07", "2020-01-03T05:06:07", "x"]),
    (("S", range(3)), [[1, 2], "x"]),
    (("S", {"a": ("S", 1)}), [{"a": 3}, {"a": "3"}, {}, []]),
    (("S", [("S", 1)]), [[3], ["3"], [], {}]),
    (("S", {"a": ("S", {"b": ("N", FLOATS)}), "c": 5}), [{"a": {"b": [[1, 2]]}, "c": "q"}, {"a": {"b": 1}}, {"a": 1}]),
    (("S", [("N", FLOATS)]), [[[[1, 2]], [[3, 4], [5, 6]]], [[[1]]]]),
]


def _decorated(kinds: SimpleNamespace, of: tuple[Any, ...], **options: Any) -> Any:
    @kinds.input("data", _made(kinds, of), **options)  # type: ignore[untyped-decorator]
    def run(data: Any = None) -> Any:
        return data

    return run


@pytest.mark.parametrize(
    ("of", "value"),
    [(of, value) for of, values in CONVERSIONS for value in values],
    ids=lambda one: repr(one)[:70],
)
def test_what_comes_is_converted_and_refused_the_same(of: tuple[Any, ...], value: Any) -> None:
    copies = json.loads(json.dumps(value)) if isinstance(value, (list, dict)) else value
    assert _outcome(lambda: _decorated(MINE, of)(data=value)) == _outcome(lambda: _decorated(THEIRS, of)(data=copies))


@pytest.mark.parametrize("options", [{}, {"optional": True}, {"convert_to_provided_type": False}], ids=repr)
@pytest.mark.parametrize("given", [{}, {"data": None}, {"data": "x"}, {"data": 2}], ids=repr)
@pytest.mark.parametrize("positional", [False, True])
def test_optional_parameters_and_those_not_to_be_converted(options: Any, given: Any, positional: bool) -> None:
    def outcome(kinds: SimpleNamespace) -> Any:
        run = _decorated(kinds, ("S", 1), **options)
        return _outcome(lambda: run(*given.values()) if positional else run(**given))

    if given or options:
        assert outcome(MINE) == outcome(THEIRS)
    else:
        # With a default the package fails with an IndexError.
        assert outcome(MINE) == (type(None), None)


def test_what_is_declared_can_be_asked_for() -> None:
    def told(kinds: SimpleNamespace) -> Any:
        @kinds.input("a", kinds.S(1))  # type: ignore[untyped-decorator]
        @kinds.input("b", kinds.N(FLOATS), optional=True)  # type: ignore[untyped-decorator]
        @kinds.output(kinds.S([1, "x"]))  # type: ignore[untyped-decorator]
        def declared(a: Any, other: Any, b: Any = None) -> Any:
            "Said."

        def plain(a: Any) -> Any:
            pass

        util = kinds.util
        return [
            *[(util.get_input_schema(one), util.get_output_schema(one)) for one in (declared, plain)],
            *[(util.get_supported_versions(one), util.is_schema_decorated(one)) for one in (declared, plain)],
            (declared.__name__, declared.__doc__),
            next(value for name, value in util.get_schemas_dict().items() if name.endswith(".declared")),
        ]

    assert told(MINE) == told(THEIRS)


@pytest.mark.parametrize("kind", [5, int])
def test_what_is_no_parameter_type_is_refused(kind: Any) -> None:
    for kinds in (MINE, THEIRS):
        with pytest.raises(Exception, match=r"(?i)parameter.?type"):
            kinds.input("data", kind)
        with pytest.raises(Exception, match=r"(?i)parameter.?type"):
            kinds.output(kind)


def test_a_second_declaration_of_the_result_is_refused() -> None:
    for kinds in (MINE, THEIRS):
        once = kinds.output(kinds.S(1))(lambda: None)
        with pytest.raises(Exception, match="output"):
            kinds.output(kinds.S(1))(once)


def test_scripts_can_define_types_of_their_own() -> None:
    for kinds in (MINE, THEIRS):

        class Doubled(kinds.A):  # type: ignore[name-defined,misc]
            def deserialize_input(self, input_data: Any) -> Any:
                return input_data * 2

            def input_to_swagger(self) -> Any:
                return {"type": "integer", "example": 1}

        @kinds.input("data", Doubled("text"))  # type: ignore[untyped-decorator]
        def run(data: Any) -> Any:
            return data

        assert run(data=4) == 8
        assert kinds.util.get_input_schema(run)["properties"] == {"data": {"type": "integer"}}


def test_dates_can_be_sent_which_the_package_fails_at() -> None:
    run = _decorated(MINE, ("S", DAY.date()))
    assert run(data="2020-01-03") == datetime.date(2020, 1, 3)
    assert _outcome(lambda: run(data="soon")) == "refused"


def test_spark_is_asked_for_only_when_it_is_used() -> None:
    spark = importlib.import_module(f"{OURS}.parameter_types.spark_parameter_type")
    with pytest.raises(ImportError, match="SparkParameterType needs pyspark; add it to the dependencies"):
        spark.SparkParameterType(TABLE)


def test_a_text_that_is_too_long_for_an_array_is_refused(frugal: Any) -> None:
    kind = NumpyParameterType(np.array(["a"]), enforce_column_type=False, enforce_shape=False)
    assert kind.deserialize_input(["a", "bc"]).tolist() == ["a", "bc"]
    with frugal(), pytest.raises(ValueError, match="too long"):
        kind.deserialize_input(["a"] * 10_000 + ["x" * 20_000])
