from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import external_data_helper, helper, numpy_helper
from small_models import EMBEDDING_SIZE, embedder_onnx

from engine.backends.onnxruntime import OnnxRuntimeEngine
from engine.compilation.importing import import_embedder, scaled_template
from engine.compilation.preprocessing import PRESETS, Preprocessing
from engine.compilation.separation import People
from engine.compilation.source_graphs import reference_graph
from engine.errors import ModelError
from engine.graphs.edits import copy_model
from engine.models.alignment import ARCFACE_TEMPLATE_XY
from engine.models.catalogue import imported_models, load_model, shipped_names
from engine.models.package import ModelPackage, Threshold

FLOAT = onnx.TensorProto.FLOAT
MODEL = embedder_onnx()
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), np.uint8)


def written(folder: Path, model: onnx.ModelProto | bytes) -> Path:
    path = folder / "mine.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return path


def imported(
    folder: Path, model: onnx.ModelProto | bytes, *, preset: str = "arcface", **options: object
) -> ModelPackage:
    arguments = {"name": "mine", "preprocessing": PRESETS[preset], "folder": folder / "models"} | options
    return import_embedder(written(folder, model), **arguments)


def embed(package: ModelPackage, pixels: np.ndarray = PIXELS) -> np.ndarray:
    engine = OnnxRuntimeEngine(reference_graph(package), threads=1)
    (output,) = engine.infer({"pixels": pixels}).values()
    return output


def changed(change: Callable[[onnx.ModelProto], None], model: onnx.ModelProto = MODEL) -> onnx.ModelProto:
    copied = copy_model(model)
    change(copied)
    return copied


def dims_of(value: onnx.ValueInfoProto) -> list[onnx.TensorShapeProto.Dimension]:
    return list(value.type.tensor_type.shape.dim)


def in_nhwc(model: onnx.ModelProto) -> None:
    """As TensorFlow's exporters write it."""
    image = model.graph.input[0]
    model.graph.node.insert(0, helper.make_node("Transpose", ["nhwc"], ["image"], perm=[0, 3, 1, 2]))
    image.CopyFrom(helper.make_tensor_value_info("nhwc", FLOAT, ["n", 112, 112, 3]))


def of_four_dimensions(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array([0, 0, 1, 1]), "four"))
    model.graph.node.append(helper.make_node("Reshape", ["embedding", "four"], ["e4"]))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("e4", FLOAT, ["n", EMBEDDING_SIZE, 1, 1]))


def of_fixed_batch(model: onnx.ModelProto) -> None:
    for value in (model.graph.input[0], model.graph.output[0]):
        dims_of(value)[0].dim_value = 1


@pytest.fixture
def plain(tmp_path: Path) -> np.ndarray:
    (tmp_path / "plain").mkdir()
    return embed(imported(tmp_path / "plain", MODEL))


@pytest.mark.parametrize("change", [in_nhwc, of_four_dimensions, of_fixed_batch])
def test_other_forms_of_a_model_give_the_same(
    change: Callable[[onnx.ModelProto], None], tmp_path: Path, plain: np.ndarray
) -> None:
    package = imported(tmp_path, changed(change))
    assert embed(package) == pytest.approx(plain, rel=1e-5)
    assert package.embedding_size == EMBEDDING_SIZE


def test_what_the_model_sees_is_what_was_stated(tmp_path: Path, plain: np.ndarray) -> None:
    rgb = np.ascontiguousarray(PIXELS[..., ::-1].transpose(0, 3, 1, 2), np.float32)
    engine = OnnxRuntimeEngine(MODEL.SerializeToString(), threads=1)
    assert plain == pytest.approx(engine.infer({"image": (rgb - 127.5) / 127.5})["embedding"], rel=1e-4)
    bgr = imported(tmp_path, MODEL, preprocessing=Preprocessing("bgr", 10.0, 0.5))
    fed = (rgb[:, ::-1] - 10) * 0.5
    expected = engine.infer({"image": np.ascontiguousarray(fed)})["embedding"]
    assert embed(bgr) == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(
    ("preset", "mean", "scale", "size_px"),
    [("arcface", 127.5, 1 / 127.5, 112), ("facenet", 127.5, 1 / 128, 160), ("sface", 0.0, 1.0, 112)],
)
def test_presets(preset: str, mean: float, scale: float, size_px: int, tmp_path: Path) -> None:
    package = imported(tmp_path, embedder_onnx(size_px=size_px), preset=preset)
    assert (package.mean, package.scale, package.colour_order) == ((mean,) * 3, scale, "rgb")
    assert package.input_size_wh == (size_px, size_px)


def test_a_package_is_all_that_was_said(tmp_path: Path) -> None:
    template = tuple((float(x), float(x + 1)) for x in range(10, 60, 10))
    package = imported(
        tmp_path, MODEL, licence="MIT", template_xy=template, thresholds=(Threshold(0.4, far=1e-3),)
    )
    assert ModelPackage.load(tmp_path / "models" / "mine" / "manifest.json") == package
    assert (package.name, package.task, package.licence) == ("mine", "embedder", "MIT")
    assert package.patches[0].template_xy == template
    assert package.thresholds == (Threshold(0.4, far=1e-3),)
    assert package.provenance.startswith("imported from mine.onnx (SHA-256 ")


def test_the_template_is_arcface_s_at_the_model_s_size() -> None:
    assert scaled_template(112) == ARCFACE_TEMPLATE_XY
    assert np.array(scaled_template(224)) == pytest.approx(np.array(ARCFACE_TEMPLATE_XY) * 2 + 0.5)


def test_a_model_of_any_size_needs_one_stated(tmp_path: Path) -> None:
    def free(model: onnx.ModelProto) -> None:
        for dim in dims_of(model.graph.input[0])[2:]:
            dim.dim_param = "side"

    with pytest.raises(ModelError, match=r"mine\.onnx: the model takes images of any size; .*--size"):
        imported(tmp_path, changed(free), preprocessing=Preprocessing("rgb", 0.0, 1.0))
    package = imported(tmp_path, changed(free))
    assert package.input_size_wh == (112, 112)
    assert embed(package).shape == (3, EMBEDDING_SIZE)


def with_two_inputs(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("age", FLOAT, ["n", EMBEDDING_SIZE]))
    model.graph.node.append(helper.make_node("Add", ["embedding", "age"], ["older"]))
    model.graph.output[0].name = "older"


def with_two_outputs(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("conv_0", FLOAT, ["n", 8, 14, 14]))


def of_four_channels(model: onnx.ModelProto) -> None:
    dims_of(model.graph.input[0])[1].dim_value = 4


def of_oblong_images(model: onnx.ModelProto) -> None:
    dims_of(model.graph.input[0])[3].dim_value = 96


def of_uint8(model: onnx.ModelProto) -> None:
    model.graph.node.insert(0, helper.make_node("Cast", ["bytes"], ["image"], to=FLOAT))
    model.graph.input[0].name = "bytes"
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8


def of_uint8_nhwc(model: onnx.ModelProto) -> None:
    in_nhwc(model)
    model.graph.node.insert(0, helper.make_node("Cast", ["bytes"], ["nhwc"], to=FLOAT))
    model.graph.input[0].name = "bytes"
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8


def with_unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node[1].op_type = "Strange"


def with_operator_of_others(model: onnx.ModelProto) -> None:
    model.graph.node[1].op_type = "Strange"
    model.graph.node[1].domain = "mine"
    model.opset_import.append(helper.make_opsetid("mine", 1))


def with_weights_elsewhere(model: onnx.ModelProto) -> None:
    external_data_helper.set_external_data(model.graph.initializer[0], "weights.bin")
    model.graph.initializer[0].ClearField("raw_data")


def with_weight(value: float) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[2]
        weights = numpy_helper.to_array(tensor).copy()
        weights.flat[7] = value
        tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))

    return change


def of_one_face_at_a_time(model: onnx.ModelProto) -> None:
    of_fixed_batch(model)
    flat = next(node for node in model.graph.node if node.op_type == "Flatten")
    flat.op_type = "Reshape"
    del flat.attribute[:]
    flat.input.append("one")
    features = model.graph.initializer[4].dims[0]
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, features]), "one"))


def that_gives_maps(model: onnx.ModelProto) -> None:
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("conv_0", FLOAT, ["n", 8, 14, 14]))


DATA = MODEL.SerializeToString()
REFUSED: dict[str, tuple[onnx.ModelProto | bytes, str]] = {
    "empty": (b"", "expected an ONNX model, got 0 bytes that are none"),
    "truncated": (DATA[: len(DATA) // 2], r"expected an ONNX model, got \d+ bytes that are none"),
    "no model": (b"PK\x03\x04 a zip file", "expected an ONNX model, got 15 bytes that are none"),
    "two inputs": (changed(with_two_inputs), "expected one input, a float32 image .*got .*image.*age"),
    "two outputs": (changed(with_two_outputs), "expected one output, an embedding, got embedding, conv_0"),
    "four channels": (changed(of_four_channels), r"expected one input, a float32 image \(N, 3, H, W\)"),
    "oblong": (changed(of_oblong_images), "expected a square image, got 96 by 112 pixels"),
    "uint8": (changed(of_uint8), "expected one input, a float32 image .*got .*UINT8"),
    "uint8 NHWC": (changed(of_uint8_nhwc), "expected one input, a float32 image .*got .*UINT8"),
    "unknown operator": (changed(with_unknown_operator), "No Op registered for Strange"),
    "others' operator": (changed(with_operator_of_others), "cannot be run .*Strange"),
    "external data": (
        changed(with_weights_elsewhere),
        "its weights are in other files; export it as a single file",
    ),
    "NaN": (changed(with_weight(math.nan)), "expected finite weights, got NaN or infinity in 'constant_2'"),
    "infinity": (changed(with_weight(math.inf)), "expected finite weights, got NaN or infinity in 'consta"),
    "constant": (embedder_onnx("constant"), "two different images gave the same output; export the trained"),
    "gives NaN": (embedder_onnx("nan"), "the output holds numbers that are not finite"),
    "one at a time": (changed(of_one_face_at_a_time), "cannot be run on two images at a time: ONNX Runtime"),
    "maps": (
        changed(that_gives_maps),
        r"expected an output \(N, D\), got 4 dimensions; export the embedding",
    ),
    "of another size": (
        embedder_onnx(size_px=96),
        "the model takes 96 by 96 pixels, not 112; give --size 96",
    ),
}


@pytest.mark.parametrize(("model", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_models_that_are_refused(model: onnx.ModelProto | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message) as failure:
        imported(tmp_path, model)
    text = str(failure.value)
    assert text.startswith(f"{tmp_path}/mine.onnx: "), text
    assert "\n" not in text
    assert not (tmp_path / "models").exists(), "nothing is kept"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot read the model file: No such file"):
        import_embedder(tmp_path / "no", name="mine", preprocessing=PRESETS["sface"], folder=tmp_path)


@pytest.mark.parametrize("name", ["", "Mine", "-mine", ".mine", "../mine", "a/b", "a b", "x" * 65, "mine\n"])
def test_names_that_make_no_sense(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name: expected small letters"):
        imported(tmp_path, MODEL, name=name)


@pytest.mark.parametrize("name", sorted(shipped_names()))
def test_names_of_shipped_models_are_taken(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"{name}: a model of this name is shipped; give another --name"):
        imported(tmp_path, MODEL, name=name)


def test_a_name_is_given_once_unless_it_is_to_be_replaced(tmp_path: Path) -> None:
    first = imported(tmp_path, MODEL)
    other = embedder_onnx(seed=1)
    with pytest.raises(ModelError, match=r"mine: a model of this name is there already; .*--replace"):
        imported(tmp_path, other)
    assert ModelPackage.load(tmp_path / "models" / "mine" / "manifest.json") == first
    second = imported(tmp_path, other, replace=True)
    assert second.sha256 != first.sha256
    assert ModelPackage.load(tmp_path / "models" / "mine" / "manifest.json") == second


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"mean": math.nan}, "mean: expected 0..255, got nan"),
        ({"mean": -1.0}, "mean: expected 0..255, got -1.0"),
        ({"scale": 0.0}, "scale: expected a number other than 0"),
        ({"scale": math.inf}, "scale: expected a number other than 0"),
        ({"size_px": 0}, "size_px: expected at least 1, got 0"),
    ],
)
def test_preprocessing_that_makes_no_sense(numbers: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Preprocessing(**{"colour_order": "rgb", "mean": 0.0, "scale": 1.0} | numbers)


def test_imported_models_are_known_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    folder = tmp_path / "facestream" / "models"
    package = import_embedder(
        written(tmp_path, MODEL), name="mine", preprocessing=PRESETS["arcface"], folder=folder
    )
    assert load_model("mine") == package
    (folder / "damaged").mkdir()
    (folder / "damaged" / "manifest.json").write_text("{")
    assert imported_models() == [package]


def test_faces_are_asked_for_when_all_else_is_right(tmp_path: Path) -> None:
    def no_people() -> People:
        raise AssertionError("photographs are looked at for a model that cannot be imported")

    with pytest.raises(ModelError, match="the model takes 96 by 96 pixels"):
        imported(tmp_path, embedder_onnx(size_px=96), people=no_people)
