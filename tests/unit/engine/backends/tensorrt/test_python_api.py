"""Every name of TensorRT that the code or its stand-in uses is one that the library has."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import tensorrt_builder_stand_in
import tensorrt_stand_in
from cuda_stand_in import Bound

REPOSITORY = Path(__file__).resolve().parents[5]
SOURCES = sorted((REPOSITORY / "engine" / "backends" / "tensorrt").glob("[!_]*.py"))
LISTS = {"tensorrt": "tensorrt-11-python-api.txt", "tensorrt-rtx": "tensorrt-rtx-1.7-python-api.txt"}

# What the variables of the sources hold, so that their attributes can be looked up.
CLASS_OF = {
    "builder": "Builder",
    "config": "IBuilderConfig",
    "context": "IExecutionContext",
    "_context": "IExecutionContext",
    "engine": "ICudaEngine",
    "_engine": "ICudaEngine",
    "kernels": "IRuntimeCache",
    "network": "INetworkDefinition",
    "options": "IRuntimeConfig",
    "parser": "OnnxParser",
    "profile": "IOptimizationProfile",
    "runtime": "Runtime",
    "tensor": "ITensor",
}
# The variable names mean something else here.
OURS = {"tensor.spec", "tensor.is_input", "tensor.smallest", "tensor.largest"}
RTX_ONLY = {
    "ComputeCapability",
    "CudaGraphStrategy",
    "CudaGraphStrategy.WHOLE_GRAPH_CAPTURE",
    "IBuilderConfig.num_compute_capabilities",
    "IBuilderConfig.set_compute_capability",
    "IRuntimeCache.deserialize",
    "IRuntimeCache.serialize",
    "IRuntimeConfig.create_runtime_cache",
    "IRuntimeConfig.cuda_graph_strategy",
    "IRuntimeConfig.set_runtime_cache",
}


def names_in(source: str) -> Iterator[str]:
    """``Class.attribute`` of the variables above, and what follows ``trt.``."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Attribute):
            continue
        match node.value:
            case ast.Name("trt"):
                yield node.attr
            case ast.Attribute(ast.Name("trt"), kind):
                yield f"{kind}.{node.attr}"
            case ast.Name(variable) | ast.Attribute(ast.Name("self"), variable) if variable in CLASS_OF:
                if f"{variable}.{node.attr}" not in OURS:
                    yield f"{CLASS_OF[variable]}.{node.attr}"


def names_listed(text: str) -> set[str]:
    """What an API list holds: names of the module, and members of its classes and enumerations."""
    names: set[str] = set()
    for line in text.splitlines():
        owner, _, members = line.partition(" ")
        found = re.findall(r"'(\w+)'", members)
        names.update(found if owner == "TOP" else [f"{owner}.{member}" for member in found])
    return names


@pytest.fixture(params=LISTS)
def flavour(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def listed(flavour: str) -> set[str]:
    folder = os.environ.get("FACESTREAM_TEST_REFERENCE", REPOSITORY.parent / "shared" / "reference")
    path = Path(folder) / LISTS[flavour]
    if not path.is_file():
        pytest.skip(f"no list of TensorRT's names at {path}; set FACESTREAM_TEST_REFERENCE to its folder")
    return names_listed(path.read_text(encoding="utf-8"))


# The lists give the members of few enumerations and classes; of the others they give the name.
UNLISTED = {"ComputeCapability.__members__", "TensorLocation.DEVICE", "__version__"}


def unknown(names: set[str], listed: set[str], flavour: str) -> set[str]:
    allowed = UNLISTED | (RTX_ONLY if flavour == "tensorrt" else set())
    return names - listed - allowed


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_the_sources_use_names_that_exist(path: Path, listed: set[str], flavour: str) -> None:
    names = set(names_in(path.read_text(encoding="utf-8")))
    assert names, "the search found nothing"
    assert unknown(names, listed, flavour) == set()


def test_the_stand_in_has_names_that_exist(listed: set[str], flavour: str) -> None:
    things = [*vars(tensorrt_stand_in).values(), *vars(tensorrt_builder_stand_in).values()]
    classes = [thing for thing in things if isinstance(thing, type) and issubclass(thing, Bound)]
    own = {"complain", "shapes_of", "model"}
    names = {
        f"{cls.__name__}.{name}"
        for cls in classes
        if cls.__name__ not in {"Bound", "ITimingCache"}
        for name in vars(cls)
        if not name.startswith("_") and name not in own
    }
    assert len(names) > 20
    assert unknown(names, listed, flavour) == set()


def test_what_only_rtx_has_is_needed(flavour: str, listed: set[str]) -> None:
    used = {name for path in SOURCES for name in names_in(path.read_text(encoding="utf-8"))}
    assert used >= RTX_ONLY, "no longer used"
    if flavour == "tensorrt":
        assert not RTX_ONLY & listed
    else:
        assert RTX_ONLY - {"ComputeCapability", "CudaGraphStrategy"} <= listed


def test_names_that_do_not_exist_are_found(listed: set[str], flavour: str) -> None:
    source = "trt.Bilder(1)\nself._context.execute_async_v2(0)\ntrt.BuilderFlag.FP16\nconfig.flags"
    assert unknown(set(names_in(source)), listed, flavour) == {
        "Bilder",
        "IExecutionContext.execute_async_v2",
        "BuilderFlag.FP16",
    }
