"""From a model to ONNX graphs, best first: in double precision, then in single. Which one serves is found by comparing.

The converters know double precision only in part: trees keep their thresholds in 32 bits and answer in 32 bits. For
models that compare in 64 bits (histogram boosting, LightGBM) that is not the same model, so ``_doubled`` has them write
64-bit thresholds, and says where single precision comes out.
"""

from __future__ import annotations

import functools
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Iterator

OPSET = {"": 18, "ai.onnx.ml": 3}
INPUT = "rows"
TREES = {"TreeEnsembleRegressor": 0, "TreeEnsembleClassifier": 1}
"""Operators that answer in single precision whatever they are given, and which of their outputs that is."""
AS_TENSOR = ("nodes_values", "nodes_hitrates", "base_values", "target_weights", "class_weights")
SCORES = ("predict_proba", "transform")
"""Methods that a graph's second output may answer; ``predict`` is answered by the first."""


@dataclass(frozen=True)
class Graph:
    """One candidate: *model* (an ``onnx.ModelProto``), the type of its input, whether its answers have 32 bits only."""

    model: Any
    type: str
    single: bool
    methods: "dict[str, str]"
    """Method to the name of the output that answers it."""

    @property
    def words(self) -> str:
        return "{} inputs".format(self.type)


class UnsupportedError(Exception):
    """A converter does not know the model; the message is its own sentence."""


def candidates(model: Any, columns: int, methods: "list[str]") -> "Iterator[Graph]":
    """Yield the graphs that can be made of *model*; ``UnsupportedError`` when there is none."""
    said = ""
    found = False
    for kind in ("float64", "float32"):
        try:
            made = _converted(model, columns, kind)
        except MemoryError:
            raise
        except Exception as error:  # converters raise what they like
            said = said or "{}: {}".format(type(error).__name__, " ".join(str(error).split())[:200])
            continue
        # The converters name each graph anew; the same model is to give the same bytes.
        made.graph.name = "model"
        single = kind == "float32" or _widen(made, cast=type(model).__name__ != "Booster")
        found = True
        if type(model).__name__ == "Booster":
            yield from (Graph(one, kind, single, names) for one, names in _of_booster(made, methods))
        else:
            yield from (Graph(one, kind, single, _methods(one, methods)) for one in _variants(made))
    if not found:
        raise UnsupportedError(said)


def _converted(model: Any, columns: int, kind: str) -> Any:
    package = type(model).__module__.partition(".")[0]
    with _doubled(kind == "float64"):
        if type(model).__name__ == "Booster":
            return _booster(model, package, columns, kind)
        return _estimator(model, columns, kind)


def _estimator(model: Any, columns: int, kind: str) -> Any:
    from skl2onnx import convert_sklearn
    from skl2onnx.common import data_types

    _register()
    tensor = data_types.DoubleTensorType if kind == "float64" else data_types.FloatTensorType
    options = {id(model): {"zipmap": False}} if hasattr(model, "predict_proba") else None
    return convert_sklearn(
        model,
        initial_types=[(INPUT, tensor([None, columns]))],
        options=options,
        target_opset=OPSET,
        custom_conversion_functions=_own(kind),
    )


def _booster(model: Any, package: str, columns: int, kind: str) -> Any:
    import onnxmltools
    from onnxmltools.convert.common import data_types

    tensor = data_types.DoubleTensorType if kind == "float64" else data_types.FloatTensorType
    given = [(INPUT, tensor([None, columns]))]
    if package == "xgboost":
        return onnxmltools.convert_xgboost(model, initial_types=given, target_opset=15)
    with _unchecked():
        return onnxmltools.convert_lightgbm(model, initial_types=given, zipmap=False, target_opset=15)


@contextmanager
def _unchecked() -> "Iterator[None]":
    """Let LightGBM's Boosters have 64-bit inputs, which onnxmltools refuses although its converter can write them."""
    from onnxmltools.convert.common import shape_calculator
    from onnxmltools.convert.lightgbm.shape_calculators import Classifier

    name = "check_input_and_output_types"
    before = [(module, getattr(module, name)) for module in (Classifier, shape_calculator)]
    for module, _ in before:
        setattr(module, name, lambda *given, **named: None)
    try:
        yield
    finally:
        for module, check in before:
            setattr(module, name, check)


def _own(kind: str) -> "dict[Any, Any]":
    """Return converters in place of those that would write 32-bit thresholds although 64 bits are asked for."""
    if kind != "float64":
        return {}
    from skl2onnx.operator_converters.random_forest import convert_sklearn_random_forest_classifier
    from sklearn import ensemble

    convert = functools.partial(convert_sklearn_random_forest_classifier, op_version=3)
    names = ("HistGradientBoostingClassifier", "RandomForestClassifier", "ExtraTreesClassifier")
    return {getattr(ensemble, name): convert for name in names if hasattr(ensemble, name)}


@functools.lru_cache(maxsize=None)
def _register() -> None:
    """Tell skl2onnx how models of XGBoost and LightGBM are converted, where those packages are."""
    from skl2onnx import update_registered_converter
    from skl2onnx.common import shape_calculator as shapes

    options = {"nocl": [True, False], "zipmap": [True, False, "columns"], "raw_scores": [True, False]}
    try:
        import lightgbm
        from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm as light

        classes, numbers = shapes.calculate_linear_classifier_output_shapes, _regressor_shapes
        update_registered_converter(lightgbm.LGBMClassifier, "LgbmClassifier", classes, light, options=options)
        update_registered_converter(lightgbm.LGBMRegressor, "LgbmRegressor", numbers, light, options={"split": None})
    except ImportError:
        pass
    try:
        import xgboost
        from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost as extreme

        classes, numbers = shapes.calculate_linear_classifier_output_shapes, _regressor_shapes
        update_registered_converter(xgboost.XGBClassifier, "XgbClassifier", classes, extreme, options=options)
        update_registered_converter(xgboost.XGBRegressor, "XgbRegressor", numbers, extreme)
    except ImportError:
        pass


def _regressor_shapes(operator: Any) -> None:
    from skl2onnx.common.shape_calculator import calculate_linear_regressor_output_shapes

    calculate_linear_regressor_output_shapes(operator)


@contextmanager
def _doubled(double: bool) -> "Iterator[None]":
    """Have the converters write trees in 64 bits while *double*; and whole numbers as such, never as booleans.

    protobuf refuses booleans for whole numbers from its version 7 on.
    """
    from onnx import helper, numpy_helper
    from skl2onnx.common import tree_ensemble

    make: Any = helper.make_attribute
    threshold: Any = tree_ensemble.sklearn_threshold

    def written(key: str, value: Any, *more: Any, **named: Any) -> Any:
        import numpy as np

        if isinstance(value, (list, tuple)) and any(isinstance(one, (bool, np.bool_)) for one in value):
            value = [int(one) for one in value]
        if double and key in AS_TENSOR:
            return make(key + "_as_tensor", numpy_helper.from_array(np.asarray(value, dtype="float64"), key))
        return make(key, value, *more, **named)

    helper.make_attribute = written
    if double:
        tree_ensemble.sklearn_threshold = _threshold
    try:
        yield
    finally:
        helper.make_attribute, tree_ensemble.sklearn_threshold = make, threshold


def _threshold(threshold: Any, dtype: Any, mode: str) -> Any:
    """Return the largest 64-bit number that is not above *threshold* once it is rounded to 32 bits.

    scikit-learn's trees round what comes in to 32 bits and compare that with 64-bit thresholds.
    """
    import numpy as np

    if not np.isfinite(threshold):
        return np.float64(threshold)
    below = np.float32(threshold)
    if below > threshold:
        below = np.nextafter(below, np.float32(-np.inf))
    above = np.nextafter(below, np.float32(np.inf))
    middle = (np.float64(below) + np.float64(above)) / 2
    return middle if np.float32(middle) <= below else np.nextafter(middle, -np.inf)


def _widen(model: Any, *, cast: bool) -> bool:
    """Cast what trees answer to the double precision that the graph declares; tells whether there are any.

    Graphs of Boosters declare what is so: without *cast* they keep it.
    """
    from onnx import TensorProto, helper

    nodes, widened = [], set()
    for node in model.graph.node:
        nodes.append(node)
        at = TREES.get(node.op_type, len(node.output))
        if at < len(node.output):
            name = node.output[at]
            widened.add(name)
            if not cast:
                continue
            node.output[at] = name + "_single"
            nodes.append(helper.make_node("Cast", [name + "_single"], [name], to=TensorProto.DOUBLE))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    for output in model.graph.output:
        if output.name in widened and cast:
            output.type.tensor_type.elem_type = TensorProto.DOUBLE
    for domain in model.opset_import:
        if domain.domain == "ai.onnx.ml" and widened:
            domain.version = max(domain.version, OPSET["ai.onnx.ml"])
    return bool(widened)


def _variants(model: Any) -> "Iterator[Any]":
    """Yield *model*, and where it is a classifier a form whose class is the first of the most probable ones.

    Trees often agree on two classes to the last bit. scikit-learn takes the first then; a sum in another order may not.
    """
    yield model
    argmax = _argmax(model)
    if argmax is not None:
        yield argmax


def _argmax(model: Any) -> Any:
    from onnx import ModelProto, helper

    outputs = [output.name for output in model.graph.output]
    trees = [node for node in model.graph.node if node.op_type == "TreeEnsembleClassifier"]
    if len(trees) != 1 or len(outputs) != 2:
        return None
    labels = [one for one in trees[0].attribute if one.name.startswith("classlabels_")]
    made = ModelProto()
    made.CopyFrom(model)
    nodes = made.graph.node
    if len(labels) != 1 or not any(outputs[0] in node.output for node in nodes):
        return None
    for node in nodes:
        for at, name in enumerate(node.output):
            if name == outputs[0]:
                node.output[at] = name + "_of_trees"
    values: Any = list(labels[0].strings) or list(labels[0].ints)
    kind = 8 if labels[0].strings else 7  # TensorProto.STRING, INT64
    made.graph.initializer.append(helper.make_tensor("classes_in_order", kind, [len(values)], values))
    nodes.append(helper.make_node("ArgMax", [outputs[1]], ["most_probable"], axis=1, keepdims=0))
    nodes.append(helper.make_node("Gather", ["classes_in_order", "most_probable"], [outputs[0]]))
    return made


def _of_booster(model: Any, methods: "list[str]") -> "Iterator[tuple[Any, dict[str, str]]]":
    """Yield the forms of a Booster, whose ``predict`` returns numbers, or probabilities: of all classes, or of yes."""
    from onnx import ModelProto, helper

    outputs = [output.name for output in model.graph.output]
    if len(outputs) == 1:
        yield model, {"predict": outputs[0]}
        return
    yield model, dict.fromkeys(methods, outputs[1])
    made = ModelProto()
    made.CopyFrom(model)
    made.graph.initializer.append(helper.make_tensor("yes", 7, [1], [1]))  # TensorProto.INT64
    made.graph.node.append(helper.make_node("Gather", [outputs[1], "yes"], ["of_yes"], axis=1))
    kind = model.graph.output[1].type.tensor_type.elem_type
    made.graph.output.append(helper.make_tensor_value_info("of_yes", kind, [None, 1]))
    yield made, {method: "of_yes" if method == "predict" else outputs[1] for method in methods}


def _methods(graph: Any, methods: "list[str]") -> "dict[str, str]":
    outputs = [output.name for output in graph.graph.output]
    if "predict" not in methods:
        return {method: outputs[0] for method in methods if method == "transform"}
    found = {"predict": outputs[0]}
    if len(outputs) > 1:
        found.update({method: outputs[1] for method in SCORES if method in methods})
    return found
