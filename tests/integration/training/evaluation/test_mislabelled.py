from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.models.catalogue import load_model
from engine.opening.select import open_engine
from engine.vision.embedder import FaceEmbedder
from engine.vision.yunet import FaceDetector
from training.data.face_crops import faces_of
from training.evaluation.fold_accuracy import PairScores
from training.evaluation.mislabelled import propose_mismatches
from training.evaluation.precision_cost import embed_crops
from training.report.contact_sheet import write_contact_sheet


@pytest.mark.faces
def test_names_of_two_people_are_found_again(face_data: Path, tmp_path: Path) -> None:
    """YTF's videos were searched for by LFW's names; by eye some of them show namesakes."""
    frames = sorted((face_data / "ytf_frames" / "frame_images_DB").glob("*/*/*.0.jpg"))
    names = {path.parent.parent.name for path in frames}
    stills = [path for name in sorted(names) for path in sorted((face_data / "lfw" / name).glob("*.jpg"))[:2]]
    sface = load_model("sface")
    embedder = FaceEmbedder.from_package(sface, open_engine(sface, kind="openvino"))
    detector = FaceDetector(open_engine(load_model("yunet")))
    still_rows, frame_rows = (
        embed_crops(embedder, faces_of(paths, detector, embedder.align)) for paths in (stills, frames)
    )
    still_names = np.array([path.parent.name for path in stills])
    frame_names = np.array([path.parent.parent.name for path in frames])
    similarities = (still_rows @ frame_rows.T).astype(np.float64).ravel()
    same = (still_names[:, None] == frame_names[None, :]).ravel()
    scores = PairScores(similarities, same, np.zeros(len(same), np.intp))
    found = propose_mismatches(scores, np.repeat(still_names, len(frames)).tolist())

    known = set((face_data / "still_video_mismatches.txt").read_text().split())
    right = known & {each.name for each in found}
    assert len(right) >= 0.75 * len(known)
    assert len(right) >= 0.75 * len(found)

    shown = {each.name: [path for path in stills if path.parent.name == each.name] for each in found}
    videos = {each.name: [path for path in frames if path.parent.parent.name == each.name] for each in found}
    write_contact_sheet(found, shown, videos, tmp_path / "sheet.html")
    page = (tmp_path / "sheet.html").read_text("utf-8")
    assert "no picture" not in page
    assert page.count("<img") >= 2 * len(found)
