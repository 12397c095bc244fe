from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.backends.onnxruntime import OnnxRuntimeEngine
from engine.errors import ModelError
from engine.opening.face_models import ModelChoice, open_face_models
from stream.app.settings import DetectionSettings, ModelSettings
from stream.app.wiring import open_models as open_for_a_run
from training.data.model_setup import open_models as open_for_a_benchmark

SETTINGS = DetectionSettings(second_look=True, enlarge=2)


def test_what_a_benchmark_measures_is_what_a_run_does(portrait: np.ndarray) -> None:
    models = ModelSettings(engine="onnxruntime", mirror=True)
    with open_for_a_run(models, SETTINGS) as (detector, embedder):
        found = detector.detect([portrait])[0]
        of_a_run = embedder.embed(embedder.align(portrait, found.landmarks_xy))
    with open_for_a_benchmark(kind="onnxruntime", flip=True, enlarge=2, second_look=True) as measured:
        faces = measured.detector.detect([portrait])[0]
        of_a_benchmark = measured.embedder.embed(measured.embedder.align(portrait, faces.landmarks_xy))
    np.testing.assert_array_equal(found.boxes_xyxy, faces.boxes_xyxy)
    np.testing.assert_allclose(of_a_run, of_a_benchmark, atol=1e-5)


def test_engines_are_closed_when_a_model_does_not_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []
    monkeypatch.setattr(OnnxRuntimeEngine, "close", lambda engine: closed.append(engine.precision))
    choice = ModelChoice(
        kind="onnxruntime", precision="int8", detector_precision="fp32", engines_dir=tmp_path
    )
    with pytest.raises(ModelError, match="facestream compile sface"), open_face_models(choice):
        pass
    assert closed == ["fp32"]
