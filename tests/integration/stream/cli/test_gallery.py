"""The people's commands as a user meets them, on a picture and a clip that everybody has."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import small_models
from event_checks import face_event, identity_event, validate_event
from people import gallery_of, template, vector

from engine.embeddings import unit_rows
from engine.models.catalogue import load_model
from engine.models.package import ModelPackage
from engine.search.model_mapping import EmbeddingMap, fit_map
from stream.events.cloudevents import from_json, to_cloudevent
from stream.events.event_types import Event, FaceEvent, IdentityChange, IdentityEvent
from stream.gallery.best_shots import BestShots
from stream.gallery.identification.identifier import Identifier, IdentifyingSink
from stream.gallery.people import Gallery
from stream.gallery.records import GalleryModel
from stream.sinks.json_lines import JsonLinesSink
from stream.sinks.sqlite import SqliteSink
from stream.sinks.track_history import read_tracks

COMMAND = (sys.executable, "-m", "stream.cli")
KEY = {"FACESTREAM_KEY": base64.b64encode(bytes(32)).decode()}
NAME = "Eileen Collins"


def facestream(*args: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name != "FACESTREAM_KEY"}
    return subprocess.run(
        [*COMMAND, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        stdin=subprocess.DEVNULL,
        env=clean | {"COLUMNS": "200"} | (env or {}),
    )


def done(*args: str | Path, env: dict[str, str] | None = None) -> str:
    result = facestream(*args, env=env)
    assert result.returncode == 0, result.stderr
    return result.stdout


def refused(*args: str | Path, env: dict[str, str] | None = None) -> str:
    result = facestream(*args, env=env)
    assert result.returncode != 0, result.stdout
    (line,) = (line for line in result.stderr.splitlines() if line.startswith(("error: ", "refused: ")))
    return line


@pytest.fixture(scope="module")
def photo(portrait: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "eileen.png"
    cv2.imwrite(str(path), portrait)
    return path


@pytest.fixture(scope="module")
def strangers() -> list[str]:
    return [f"Stranger {number}" for number in range(20)]


@pytest.fixture
def gallery(tmp_path: Path, strangers: list[str]) -> Path:
    """A gallery of people who look like nobody."""
    model = GalleryModel.of(load_model("sface"), mirror=False)
    gallery_of(tmp_path / "g.db", *strangers, model=model).close()
    return tmp_path / "g.db"


def identities(path: Path) -> list[IdentityEvent]:
    events = [from_json(line) for line in path.read_bytes().splitlines()]
    found = [event for event in events if isinstance(event, IdentityEvent)]
    for event in found:
        validate_event(to_cloudevent(event))
    return found


def test_a_run_names_who_is_enrolled(gallery: Path, photo: Path, short_clip: Path, tmp_path: Path) -> None:
    assert "1 face of 1 person" in done("gallery", "enrol", gallery, photo, "--name", NAME)
    done("run", short_clip, "--gallery", gallery, "--sink", f"jsonl:{tmp_path}/events")
    (event,) = identities(tmp_path / "events")
    assert (event.change, event.person_name) == (IdentityChange.DECIDED, NAME)
    assert event.similarity is not None
    assert event.similarity > event.threshold
    assert event.gallery_people == 21
    assert event.false_accept_rate == 0.01


def test_somebody_seen_on_camera_is_enrolled_and_another_is_not_she(
    gallery: Path, short_clip: Path, tmp_path: Path
) -> None:
    done(
        *("run", short_clip, "--gallery", gallery, "--false-accepts", "0.001"),
        *("--sink", f"jsonl:{tmp_path}/first"),
    )
    (event,) = identities(tmp_path / "first")
    assert not event.known
    track = ("--track", event.track_id, "--events", tmp_path / "first")
    assert "1 face of 1 person" in done("gallery", "enroll", gallery, *track, "--name", NAME)
    done("run", short_clip, "--gallery", gallery, "--sink", f"jsonl:{tmp_path}/second")
    assert [each.person_name for each in identities(tmp_path / "second")] == [NAME]
    assert "is not Stranger 1" in done("gallery", "not", gallery, "Stranger 1", *track)
    assert "there is no track t" in refused("gallery", "not", gallery, NAME, "--track", "t", *track[2:])


def test_what_another_process_changes_reaches_a_running_sink(gallery: Path, tmp_path: Path) -> None:
    seconds = 0.0
    ann = vector(60)
    with Gallery.open(gallery, sealer=None) as watched:
        sink = IdentifyingSink(JsonLinesSink(tmp_path / "e"), Identifier(watched), clock=lambda: seconds)
        event = face_event(embedding=ann, embedding_model=watched.model.name, track_id="t1")
        sink.emit([event])
        track = ("--track", "t1", "--events", tmp_path / "e")
        done("gallery", "enrol", gallery, *track, "--name", "Ann")
        seconds = 2.0
        sink.emit([dataclasses.replace(event, sequence=1)])
        done("gallery", "remove", gallery, "Ann")
        seconds = 4.0
        sink.emit([dataclasses.replace(event, sequence=2)])
        sink.close(0.0)
    told = [(each.change.value, each.person_name, each.reason) for each in identities(tmp_path / "e")]
    assert told == [
        ("decided", None, ""),
        ("corrected", "Ann", "the gallery has changed"),
        ("corrected", None, "the person was removed from the gallery"),
    ]


def test_refusals_are_told_one_a_line(gallery: Path, tmp_path: Path, photo: Path) -> None:
    blank = tmp_path / "blank.png"
    cv2.imwrite(str(blank), np.full((200, 200, 3), 128, np.uint8))
    assert refused("gallery", "enrol", gallery, blank, "--name", "Ann").endswith("no face was found in it")
    result = facestream("gallery", "enrol", gallery, blank, photo, "--name", "Ann")
    assert result.returncode == 0
    assert "enrolled: 1 face of 1 person; refused: 1" in result.stdout
    for wrong in (
        (photo,),
        ("--name", "Ann"),
        (photo, "--name", "A", "--folders", tmp_path),
        ("--track", "t"),
    ):
        assert "see --help" in refused("gallery", "enrol", gallery, *wrong)


def test_folders_of_any_names_cost_only_those_that_do_not_fit(
    gallery: Path, photo: Path, tmp_path: Path
) -> None:
    root = tmp_path / "people"
    for name in (
        "Eileen_Collins",
        " x ",
        "a\nb",
        os.fsdecode(b"Ren\xe9e"),
        "y" * 201,
        "nested/2019",
        "empty",
    ):
        (root / name).mkdir(parents=True)
    for name in ("Eileen_Collins", " x ", "a\nb", os.fsdecode(b"Ren\xe9e"), "y" * 201, "nested/2019"):
        (root / name / "1.png").symlink_to(photo)
    result = facestream("gallery", "enrol", gallery, "--folders", root)
    assert result.returncode == 3, result.stderr
    assert "enrolled: 1 face of 1 person; refused: 0; left out: 6 (" in result.stdout
    told = [line for line in result.stderr.splitlines() if line.startswith("left out: ")]
    assert len(told) == 6
    for reason in ("spaces at its ends", "U+000A", "UTF-8", "201 characters", "--deep", "has no photograph"):
        assert any(reason in line for line in told), reason
    assert "Traceback" not in result.stderr
    shown = done("gallery", "show", gallery, NAME)
    assert "1.png" in shown
    assert refused("gallery", "rename", gallery, NAME, os.fsdecode(b"\xff")).startswith("error: name: is not")
    with Gallery.open(gallery, sealer=None) as opened:
        person = opened.find(NAME)
    (tmp_path / "ids" / person.id).mkdir(parents=True)
    (tmp_path / "ids" / person.id / "1.png").write_bytes(photo.read_bytes() + b"another file")
    told = refused("gallery", "enrol", gallery, "--force", "--folders", tmp_path / "ids")
    assert "is the id of somebody" in told


def test_of_two_processes_that_enrol_one_person_one_is_refused(gallery: Path, photo: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        enrol = partial(facestream, "gallery", "enrol", gallery, photo, "--name")
        results = dict(zip(("Ann", "Bob"), pool.map(enrol, ("Ann", "Bob")), strict=True))
    assert sorted(result.returncode for result in results.values()) == [0, 1], results
    (taken,) = (name for name, result in results.items() if result.returncode == 0)
    (lost,) = (result for result in results.values() if result.returncode)
    assert f"it is enrolled already, as {taken}" in lost.stderr
    with Gallery.open(gallery, sealer=None) as opened:
        assert {"Ann", "Bob"} & {each.name for each in opened.people()} == {taken}


def test_folders_are_enrolled_and_listed(gallery: Path, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "people" / NAME).mkdir(parents=True)
    (tmp_path / "people" / NAME / "1.png").write_bytes(photo.read_bytes())
    assert "1 face of 1 person" in done("gallery", "enrol", gallery, "--folders", tmp_path / "people")
    listed = done("gallery", "list", gallery)
    assert "21 people, for sface-2021dec" in listed
    assert NAME in listed
    assert "photo" in done("gallery", "show", gallery, NAME)


@pytest.mark.parametrize(
    "name", ["Ann [/b]", "[black]Ann", "Ann :smile:", "[link=https://example.org]Ann[/link]"]
)
def test_names_are_shown_as_they_stand(tmp_path: Path, name: str) -> None:
    model = GalleryModel.of(load_model("sface"), mirror=False)
    with gallery_of(tmp_path / "g.db", model=model) as gallery:
        row = template(unit_rows(vector(1)), origin="\x1b[2Jphoto.png")
        gallery.enrol(name, [row], notes="a\x1b]0;title\x07note")
    assert name in done("gallery", "list", tmp_path / "g.db")
    shown = done("gallery", "show", tmp_path / "g.db", name)
    assert name in shown
    assert "?[2Jphoto.png" in shown
    assert "a?]0;title?note" in shown


def test_a_removal_proves_itself_and_names_the_copies(gallery: Path, tmp_path: Path) -> None:
    done("gallery", "export", gallery, tmp_path / "copy", "--plain")
    told = done("gallery", "remove", gallery, "Stranger 3")
    assert told.startswith("erased: Stranger 3 (")
    assert "), with 1 face, 0 photographs\n" in told
    assert "none is left" in told
    assert f"{tmp_path}/copy: delete it by hand" in told
    assert "Stranger 3 " not in done("gallery", "list", gallery)
    assert vector(3).tobytes() not in gallery.read_bytes()
    audited = done("gallery", "audit", gallery)
    assert ", faces: 1, photos: 0, faces of somebody else: 0\n" in audited
    assert "pieces found: 0" in audited
    assert done("gallery", "clean", gallery).endswith("clean\n")
    assert "nobody is called" in refused("gallery", "remove", gallery, "Stranger 3")


def test_a_removal_reaches_files_of_events_and_pictures(gallery: Path, tmp_path: Path) -> None:
    shots = tmp_path / "shots"
    with Gallery.open(gallery, sealer=None) as opened:
        opened.enrol("Ann", [template(vector(50), source="track", origin="t1")])
        ann = opened.find("Ann").id
    store = BestShots(shots)
    events: list[Event] = []
    for track in ("t1", "t2", "t3"):
        store(face_event(track_id=track), np.zeros((8, 8, 3), np.uint8))
        events.append(face_event(track_id=track))
    events.append(identity_event(track_id="t2", person_id=ann, person_name="Ann"))
    sink = SqliteSink(tmp_path / "e.db")
    sink.emit(events)
    sink.close(0.0)
    told = done(
        *("gallery", "remove", gallery, "Ann", "--topic", f"sqlite:{tmp_path}/e.db"),
        *("--best-shots", shots, "--spool", tmp_path),
    )
    assert "of 2 tracks: 0 in spools, 3 in sqlite, 2 in best shots" in told
    assert [path.name for path in shots.iterdir()] == ["t3.jpg"]
    assert [each.track_id for each in read_tracks(f"sqlite:{tmp_path}/e.db")] == ["t3"]


def test_what_cannot_be_erased_elsewhere_leaves_all_to_be_repeated(gallery: Path, tmp_path: Path) -> None:
    for address in (f"sqlite:{tmp_path}/none.db", "kafka://127.0.0.1:1/faces", "mqtt://h/t"):
        assert refused("gallery", "remove", gallery, "Stranger 3", "--topic", address)
    assert "Stranger 3" in done("gallery", "list", gallery)


def test_a_sealed_gallery_goes_to_another_machine_with_its_key(tmp_path: Path) -> None:
    first, second, file = tmp_path / "a.db", tmp_path / "b.db", tmp_path / "people"
    assert ", sealed" in done("gallery", "create", first, env=KEY)
    with Gallery.open(first, sealer=_sealer()) as gallery:
        gallery.enrol("Ann", [template(vector(1))])
    done("gallery", "export", first, file, env=KEY)
    assert "is encrypted" in refused("gallery", "list", first)
    assert "is encrypted" in refused("gallery", "import", second, file)
    assert not second.exists()
    assert "new are 1 person and 1 face" in done("gallery", "import", second, file, env=KEY)
    assert "Ann" in done("gallery", "list", second, env=KEY)


def _sealer() -> object:
    from stream.common.encryption import Sealer

    return Sealer.from_environment(KEY)


def test_another_model_is_refused_before_anything_runs(gallery: Path, tmp_path: Path, photo: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(f"models: {{mirror: true}}\nidentity: {{gallery: {gallery}}}\n")
    assert "not compatible" in refused("run", photo, "--config", config)
    assert "no such gallery" in refused("run", photo, "--gallery", tmp_path / "none.db")
    assert "false_accept_rate" in refused("run", photo, "--gallery", gallery, "--false-accepts", "1")


def test_a_gallery_with_photographs_is_upgraded(tmp_path: Path, photo: Path) -> None:
    path = tmp_path / "g.db"
    done("gallery", "create", path, "--keep-photos")
    done("gallery", "enrol", path, photo, "--name", NAME)
    small_models.embedder(tmp_path)
    told = done("gallery", "upgrade", path, "--to", tmp_path / "tiny-faces.json")
    assert "1 face embedded again" in told
    (backup,) = tmp_path.glob("g.db.backup-*")
    assert str(backup) in told
    with Gallery.open(path, sealer=None) as gallery:
        assert gallery.model.name == "tiny"
        assert gallery.snapshot().templates.shape == (1, small_models.EMBEDDING_SIZE)
    told = done("gallery", "upgrade", path, "--to", "sface", "--delete-old")
    assert "delete it when" not in told
    assert len(list(tmp_path.glob("g.db.backup-*"))) == 1
    assert "is a detector" in refused("gallery", "upgrade", path, "--to", "yunet")


def test_a_model_that_was_trained_to_compare_takes_a_gallery_as_it_is(tmp_path: Path, photo: Path) -> None:
    path = tmp_path / "g.db"
    old = small_models.embedder(tmp_path, name="old")
    done("gallery", "create", path, "--embedder", old.onnx_path.with_suffix(".json"))
    done(
        *("gallery", "enrol", path, photo, "--name", NAME),
        *("--embedder", old.onnx_path.with_suffix(".json")),
    )
    data = small_models.embedder_onnx(seed=1).SerializeToString()
    (tmp_path / "new.onnx").write_bytes(data)
    new = dataclasses.replace(
        old, name="new", onnx_path=tmp_path / "new.onnx", sha256=hashlib.sha256(data).hexdigest()
    )
    new.save(tmp_path / "new.json")
    assert "cannot be moved" in refused("gallery", "upgrade", path, "--to", tmp_path / "new.json")
    dataclasses.replace(new, harmonic_with=(old.sha256,)).save(tmp_path / "new.json")
    with Gallery.open(path, sealer=None) as gallery:
        before = gallery.snapshot().templates
    told = done("gallery", "upgrade", path, "--to", tmp_path / "new.json")
    assert "new was trained to be compatible with old" in told
    with Gallery.open(path, sealer=None) as gallery:
        assert gallery.model.name == "new"
        np.testing.assert_array_equal(gallery.snapshot().templates, before)
    assert "both mirrored or neither" in refused(
        *("gallery", "upgrade", path, "--to", _harmonic_with_itself(tmp_path / "new.json"), "--mirror")
    )


def _harmonic_with_itself(manifest: Path) -> Path:
    package = ModelPackage.load(manifest)
    dataclasses.replace(package, harmonic_with=(package.sha256,)).save(manifest)
    return manifest


def test_a_gallery_without_photographs_is_mapped_and_by_a_poor_map_only_where_that_is_wanted(
    tmp_path: Path, photo: Path
) -> None:
    path, size = tmp_path / "g.db", small_models.EMBEDDING_SIZE
    new = small_models.embedder(tmp_path, name="new")
    sface = load_model("sface")
    done("gallery", "create", path)
    done("gallery", "enrol", path, photo, "--name", NAME)
    random = np.random.default_rng(0)
    people = np.repeat(np.arange(80), 4).astype(np.intp)
    directions = random.normal(size=(80, 128))[people]
    old_faces = unit_rows(directions + 0.3 * random.normal(size=(320, 128)))
    new_faces = unit_rows(directions[:, :size] + 0.3 * random.normal(size=(320, size)))
    fit_map(
        old_faces,
        new_faces,
        people,
        old_model=(sface.name, sface.sha256),
        new_model=(new.name, new.sha256),
    ).save(tmp_path / "map.npz")
    command = ("gallery", "upgrade", path, "--to", new.onnx_path.with_suffix(".json"))
    command = (*command, "--map", tmp_path / "map.npz")
    told = refused(*command)
    assert "this map loses too much: of one person's pairs" in told
    assert "are accepted, where the new model accepts" in told
    assert "enrol from photographs whom --leave-out names, or accept the loss with --accept-loss" in told
    with Gallery.open(path, sealer=None) as gallery:
        assert gallery.model.name == sface.name
    result = facestream(*command, "--accept-loss")
    assert result.returncode == 0, result.stderr
    assert "1 mapped" in result.stdout
    assert "warning: this map loses too much" in result.stderr
    with Gallery.open(path, sealer=None) as gallery:
        assert gallery.model.name == "new"


@pytest.mark.faces
def test_a_map_is_fitted_on_folders_of_photographs(face_data: Path, tmp_path: Path) -> None:
    folders = tmp_path / "people"
    folders.mkdir()
    several = [each for each in sorted((face_data / "lfw").iterdir()) if len(list(each.iterdir())) >= 3]
    for each in several[:100]:
        (folders / each.name).mkdir()
        for photo in sorted(each.iterdir())[:4]:
            (folders / each.name / photo.name).symlink_to(photo)
    file = tmp_path / "map.npz"
    told = done("gallery", "fit-map", file, "--folders", folders, "--from", "sface", "--to", "sface")
    assert "accepted (old model" in told
    assert EmbeddingMap.load(file).pairs >= 256


def test_the_index_is_measured(tmp_path: Path) -> None:
    told = done(
        *("bench", "gallery", "--people", "3000", "--searches", "20", "--adds", "50"),
        *("--json", tmp_path / "figures.json"),
    )
    assert "recall of the ten nearest" in told
    assert "aims: " in told
    assert (tmp_path / "figures.json").read_text().count('"population"') == 2


def test_faces_of_the_track_are_events_too(gallery: Path, short_clip: Path, tmp_path: Path) -> None:
    done(
        "run",
        short_clip,
        "--gallery",
        gallery,
        "--sink",
        f"sqlite:{tmp_path}/e.db",
        "--sink",
        f"jsonl:{tmp_path}/e",
    )
    events = [from_json(line) for line in (tmp_path / "e").read_bytes().splitlines()]
    at = next(row for row, event in enumerate(events) if isinstance(event, IdentityEvent))
    before = events[at - 1]
    assert isinstance(before, FaceEvent)
    assert before.track_id == events[at].track_id  # type: ignore[union-attr]
