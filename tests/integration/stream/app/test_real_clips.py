"""Real clips through the command, all of them at once, as cameras of one run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest
from event_checks import validate_event

from engine.embeddings import unit_rows
from engine.faces import Faces, Image
from engine.models.catalogue import load_model
from engine.opening.select import open_engine
from engine.vision.embedder import FaceEmbedder
from engine.vision.yunet import FaceDetector
from stream.app.settings import override_settings
from stream.events.cloudevents import from_json
from stream.events.event_types import CameraEvent, Event, FaceEvent, TrackChange
from stream.watch import watch

pytestmark = pytest.mark.faces

TV_CLIPS = (
    "0188_03_021_al_pacino",
    "0217_03_006_alanis_morissette",
    "0294_02_004_angelina_jolie",
    "0490_03_007_bill_gates",
    "1804_03_006_sylvester_stallone",
    "1815_01_008_tony_blair",
    "1869_03_009_victoria_beckham",
    "1878_01_002_vladimir_putin",
)
STILLS_OF_OTHERS = 1
"""Of the people who are in no clip, so many stills are enough to be mistaken for."""


@pytest.fixture(scope="module")
def events(face_data: Path) -> dict[str, list[Event]]:
    """By clip, what the command said of it."""
    clips = sorted((face_data / "clips").iterdir())
    done = subprocess.run(
        [sys.executable, "-m", "stream.cli", "run", *clips, "--no-realtime", "--sink", "jsonl:-"],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    by_camera: defaultdict[str, list[Event]] = defaultdict(list)
    for line in done.stdout.splitlines():
        validate_event(json.loads(line))
        event = from_json(line)
        by_camera[event.camera_id].append(event)
    assert set(by_camera) == {clip.stem for clip in clips}
    return dict(by_camera)


def tracks(events: list[Event]) -> list[FaceEvent]:
    """Each track as it left, the longest first."""
    left = [event for event in events if isinstance(event, FaceEvent) and event.change is TrackChange.LEFT]
    return sorted(left, key=lambda event: -event.faces_seen)


def test_every_clip_runs_to_its_end(events: dict[str, list[Event]]) -> None:
    for name, of_clip in events.items():
        last = of_clip[-1]
        assert isinstance(last, CameraEvent), name
        assert last.reason == "end of the video", name


def test_no_id_is_used_twice_and_every_track_leaves_once(events: dict[str, list[Event]]) -> None:
    faces = [event for of_clip in events.values() for event in of_clip if isinstance(event, FaceEvent)]
    assert len({event.event_id for event in faces}) == len(faces)
    appeared = [event.track_id for event in faces if event.change is TrackChange.APPEARED]
    left = [event.track_id for event in faces if event.change is TrackChange.LEFT]
    assert len(set(appeared)) == len(appeared)
    assert sorted(appeared) == sorted(left)


def test_nobody_is_nobody(events: dict[str, list[Event]]) -> None:
    assert tracks(events["pyfeat_no_face"]) == []


def test_three_people_before_a_whiteboard_are_three_long_tracks(events: dict[str, list[Event]]) -> None:
    """The clip's 702 frames show three people, of which 234 are looked at."""
    found = tracks(events["multi_face"])
    assert len(found) == 3
    assert min(track.faces_seen for track in found) > 0.9 * 234


def test_no_storm_of_tracks(events: dict[str, list[Event]]) -> None:
    alone = ("Video14", "default", "driving_d0", "driving_d10", "pyfeat_single_face", "source_s18")
    assert {name: len(tracks(events[name])) for name in alone} == dict.fromkeys(alone, 1)
    assert max(len(tracks(of_clip)) for of_clip in events.values()) <= 20


@pytest.fixture(scope="module")
def gallery(face_data: Path) -> tuple[list[str], np.ndarray]:
    """Each person of the stills, with the mean of the person's embeddings, unit length."""
    detector = FaceDetector(open_engine(load_model("yunet")), min_score=0.6)
    package = load_model("sface")
    embedder = FaceEmbedder.from_package(package, open_engine(package))
    wanted = {name.split("_", 3)[3] for name in TV_CLIPS}
    names, means = [], []
    for person in sorted((face_data / "lfw").iterdir()):
        stills = sorted(person.iterdir())
        if person.name.lower() not in wanted:
            stills = stills[:STILLS_OF_OTHERS]
        images = [cv2.imread(os.fspath(path)) for path in stills]
        crops = [
            embedder.align(image, faces[[middle_face(faces, image)]].landmarks_xy)
            for image, faces in zip(images, detector.detect(images), strict=True)
            if len(faces)
        ]
        if crops:
            names.append(person.name.lower())
            means.append(embedder.embed(np.concatenate(crops)).mean(axis=0))
    assert wanted <= set(names)
    return names, unit_rows(np.stack(means))


def middle_face(faces: Faces, image: Image) -> int:
    """Row of the face nearest to the middle of the picture."""
    centres = (faces.boxes_xyxy[:, :2] + faces.boxes_xyxy[:, 2:]) / 2
    middle = np.array([image.shape[1], image.shape[0]]) / 2
    return int(np.linalg.norm(centres - middle, axis=1).argmin())


@pytest.mark.parametrize("clip", TV_CLIPS)
def test_the_dominant_track_is_the_person_of_the_clip(
    clip: str, events: dict[str, list[Event]], gallery: tuple[list[str], np.ndarray]
) -> None:
    dominant, *others = tracks(events[clip])
    assert all(dominant.faces_seen > 3 * other.faces_seen for other in others)
    names, means = gallery
    assert names[int((means @ dominant.embedding).argmax())] == clip.split("_", 3)[3]


@pytest.mark.parametrize("analysis_fps", [0.8, 0.2])
def test_who_is_seen_often_is_seen_seldom_too(
    analysis_fps: float, face_data: Path, events: dict[str, list[Event]]
) -> None:
    clips = [face_data / "clips" / f"{name}.avi" for name in TV_CLIPS]
    clips.append(face_data / "clips" / "pyfeat_no_face.mp4")
    given = override_settings(
        None, sources=[str(clip) for clip in clips], sinks=[], environment={}, analysis_fps=analysis_fps
    )
    seen: defaultdict[str, list[Event]] = defaultdict(list)
    for event in watch(settings=given):
        seen[event.camera_id].append(event)
    assert tracks(seen["pyfeat_no_face"]) == []
    for clip in TV_CLIPS:
        person = tracks(events[clip])[0].embedding
        found = [float(track.embedding @ person) for track in tracks(seen[clip])]
        assert max(found, default=0.0) > 0.6, clip
        assert len(found) <= 2, clip
