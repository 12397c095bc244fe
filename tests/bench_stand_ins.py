"""A made-up world for benchmarks: people are patterns of 4 by 4 grey cells, and the models see just those."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from engine.faces import Faces
from training.data.embedding_reader import upright_landmarks
from training.data.model_setup import FaceModels

SIDE_PX, CELLS, FACE_PX = 64, 4, 28


def pattern(person: int, shot: int = 0, *, noise: float = 10.0) -> np.ndarray:
    """A face, uint8 (FACE_PX, FACE_PX, 3); shots of one person are alike."""
    cells = np.random.default_rng(person).uniform(30, 225, (CELLS, CELLS))
    cells = cells + np.random.default_rng([person, shot]).normal(0, noise, cells.shape)
    grey = np.kron(np.clip(cells, 20, 235), np.ones((FACE_PX // CELLS, FACE_PX // CELLS)))
    return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)


def frame(face: np.ndarray | None, *, aside: np.ndarray | None = None) -> np.ndarray:
    """An image with a face in its centre, and perhaps another one aside; black without faces."""
    image = np.zeros((SIDE_PX, 2 * SIDE_PX, 3), np.uint8)
    for each, x in ((face, SIDE_PX), (aside, FACE_PX)):
        if each is not None:
            left, top = x - FACE_PX // 2, (SIDE_PX - FACE_PX) // 2
            image[top : top + FACE_PX, left : left + FACE_PX] = each
    return image


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 95])


class PatternDetector:
    """Finds what is not black, aside and in the centre; counts the images that it is shown."""

    def __init__(self) -> None:
        self.images = 0

    def detect(self, images: Sequence[np.ndarray]) -> list[Faces]:
        self.images += len(images)
        return [self._faces(image) for image in images]

    def _faces(self, image: np.ndarray) -> Faces:
        y = image.shape[0] / 2
        places = [x for x in (FACE_PX, image.shape[1] / 2) if image[int(y) - 2, int(x) - 2].max() > 12]
        if not places:
            return Faces.none()
        half = FACE_PX / 2
        return Faces(
            np.array([[x - half, y - half, x + half, y + half] for x in places], np.float32),
            np.full(len(places), 0.9, np.float32),
            np.concatenate([upright_landmarks(x, y, FACE_PX) for x in places]),
        )


class PatternEmbedder:
    """The cells' grey values as a vector; counts the faces that it is shown.

    Args:
        fails_after: Faces until it raises ``KeyboardInterrupt``, as a user would.
        random: Give vectors that have nothing to do with the person.
    """

    embedding_size = CELLS * CELLS

    def __init__(self, *, fails_after: int | None = None, random: bool = False) -> None:
        self.faces = 0
        self._fails_after = fails_after
        self._random = random

    def align(self, image: np.ndarray, landmarks_xy: np.ndarray) -> np.ndarray:
        crops = np.zeros((len(landmarks_xy), FACE_PX, FACE_PX, 3), np.uint8)
        own = upright_landmarks(0, 0, FACE_PX)[0]
        for crop, points in zip(crops, landmarks_xy, strict=True):
            scale = np.linalg.norm(points[1] - points[0]) / np.linalg.norm(own[1] - own[0])
            corner = points.mean(axis=0) - scale * FACE_PX / 2
            matrix = np.float32([[scale, 0, corner[0]], [0, scale, corner[1]]])
            flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
            crop[:] = cv2.warpAffine(image, matrix, (FACE_PX, FACE_PX), flags=flags)
        return crops

    def portraits(self, crops: np.ndarray) -> np.ndarray:
        return crops

    def embed(self, crops: np.ndarray) -> np.ndarray:
        self.faces += len(crops)
        if self._fails_after is not None and self.faces > self._fails_after:
            raise KeyboardInterrupt
        cells = crops[..., 0].reshape(len(crops), CELLS, FACE_PX // CELLS, CELLS, -1).mean(axis=(2, 4))
        vectors = cells.reshape(len(crops), -1) - 128
        if self._random:
            vectors = np.stack([np.random.default_rng(crop.ravel()[:200]).normal(size=16) for crop in crops])
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def pattern_models(embedder: PatternEmbedder | None = None) -> FaceModels:
    return FaceModels(PatternDetector(), embedder or PatternEmbedder(), choices={"embedder": "pattern"})


def make_ytf(
    root: Path, *, people: int = 12, videos: int = 3, frames: int = 3, splits: int = 3, noise: float = 10.0
) -> Path:
    """A data set in YTF's layout; gives its list: in each split all pairs of videos of its people."""
    folder = root / "frame_images_DB"
    names = [f"Person_{chr(65 + person // 26)}{chr(65 + person % 26)}" for person in range(people)]
    for person, name in enumerate(names):
        labels = []
        for video in range(videos):
            for number in range(1, frames + 1):
                file = f"{name}/{video}/{video}.{number}.jpg"
                write(folder / file, frame(pattern(person, 100 * video + number, noise=noise)))
                back = file.replace("/", "\\")
                labels.append(f"{back},0,{SIDE_PX},{SIDE_PX // 2},{FACE_PX},{FACE_PX},0,0")
        (folder / f"{name}.labeled_faces.txt").write_text("\n".join(labels) + "\n")
    rows, per_split = ["split number, pair number, first name, second name, is same"], people // splits
    for split in range(splits):
        group = names[split * per_split : (split + 1) * per_split]
        own = [f"{name}/{video}" for name in group for video in range(videos)]
        pairs = [(a, b) for i, a in enumerate(own) for b in own[i + 1 :]]
        rows += [
            f"{split + 1}, {n}, {a}, {b}, {int(a.split('/')[0] == b.split('/')[0])}"
            for n, (a, b) in enumerate(pairs, 1)
        ]
    path = root / "splits.txt"
    path.write_text("\n".join(rows) + "\n")
    return path


def make_lfw(root: Path, *, people: int = 12, shots: int = 3, folds: int = 3) -> Path:
    """A data set in LFW's layout; gives its list."""
    names = [f"Person_{chr(65 + person)}" for person in range(people)]
    for person, name in enumerate(names):
        for shot in range(1, shots + 1):
            write(root / name / f"{name}_{shot:04d}.jpg", frame(pattern(person, shot)))
    rows, per_fold = ["fold,name1,n1,name2,n2,same"], people // folds
    for fold in range(folds):
        group = names[fold * per_fold : (fold + 1) * per_fold]
        own = [(name, shot) for name in group for shot in range(1, shots + 1)]
        rows += [
            f"{fold + 1},{a[0]},{a[1]},{b[0]},{b[1]},{int(a[0] == b[0])}"
            for i, a in enumerate(own)
            for b in own[i + 1 :]
        ]
    path = root / "pairs.csv"
    path.write_text("\n".join(rows) + "\n")
    return path
