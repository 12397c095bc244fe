from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from engine.models.catalogue import load_model
from engine.opening.select import open_engine
from engine.vision.embedder import FaceEmbedder
from engine.vision.yunet import FaceDetector
from training.data.model_setup import FaceModels
from training.evaluation.identification.benchmark import judge_ident, load_ident


@pytest.mark.faces
def test_sface_on_some_people(face_data: Path, tmp_path: Path) -> None:
    names = (face_data / "still_video_mismatches.txt").read_text().split()
    frames = face_data / "ytf_frames" / "frame_images_DB"
    (tmp_path / "frame_images_DB").mkdir()
    (tmp_path / "lfw").mkdir()
    for name in sorted(p.name for p in frames.iterdir() if p.name not in names)[:40]:
        (tmp_path / "frame_images_DB" / name).symlink_to(frames / name)
        (tmp_path / "lfw" / name).symlink_to(face_data / "lfw" / name)
    package = load_model("sface")
    embedder = FaceEmbedder.from_package(package, open_engine(package, kind="openvino"))
    detector = FaceDetector(open_engine(load_model("yunet"), kind="openvino"), min_score=0.6)
    faces = load_ident(tmp_path, FaceModels(detector, embedder), stills=tmp_path / "lfw", frames_per_video=2)
    for scenario, least in (("still-to-video", 0.93), ("video-to-video", 0.9)):
        result = judge_ident(faces, scenario=scenario, rounds=50, repetitions=3)
        assert result.data["people"] == 40
        assert all((tmp_path / pair.first_image).is_file() for pair in result.pairs)
        assert least <= result.figures["rank-1"] <= result.figures["rank-5"] <= 1
    json.dumps(dataclasses.asdict(result), allow_nan=False)
