"""Find faces with MTCNN: a pyramid of windows, sifted by three networks, each more exact than the last.

Zhang and others, "Joint Face Detection and Alignment using Multi-task Cascaded Convolutional Networks", 2016.
Boxes are in pixels from the image's upper left corner, which is what the paper's code calls ``x - 1``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from engine.batching import batch_sizes
from engine.faces import Faces, FloatArray, Image
from engine.geometry import Letterbox
from engine.models.mtcnn_weights import BOXES, ONET_SIZE_PX, POINTS, RNET_SIZE_PX, SCORES
from engine.protocol import Arrays, Engine
from engine.vision.detection import check_images

_WINDOW_PX: Final = 12
_STRIDE_PX: Final = 2
_PYRAMID_FACTOR: Final = 0.709
_LEVEL_IOU: Final = 0.5
_STAGE_IOU: Final = 0.7
_MOST_COVERED: Final = 0.7
_MOST_WINDOWS: Final = 2000
_LARGEST_LEVEL_BATCH: Final = 4
_LARGEST_CROP_BATCH: Final = 64


class MtcnnDetector:
    """MTCNN on three engines, which take ``pixels``, uint8 (N, H, W, 3) BGR.

    ``detect`` may be called from several threads.

    Args:
        pnet: P-Net, of any size of image.
        rnet: R-Net, of 24 by 24 pixels.
        onet: O-Net, of 48 by 48 pixels.
        min_score: Faces to which O-Net gives less confidence are left out, 0..1.
        proposal_scores: What P-Net and R-Net must give a window for the next network to look at it, 0..1.
        min_face_px: Side of the smallest face that is looked for, in pixels of the shrunk image.
        long_side_px: Images are shrunk, never enlarged, until their longer side has at most so many pixels.

    Raises:
        ValueError: A number is out of range, or an engine is another network's.
    """

    def __init__(
        self,
        pnet: Engine,
        rnet: Engine,
        onet: Engine,
        *,
        min_score: float = 0.3,
        proposal_scores: tuple[float, float] = (0.6, 0.7),
        min_face_px: int = 20,
        long_side_px: int = 640,
    ) -> None:
        scores = (min_score, *proposal_scores)
        if not all(0 < score < 1 for score in scores):
            raise ValueError(f"expected min_score and proposal_scores between 0 and 1, got {scores}")
        if min_face_px < _WINDOW_PX or long_side_px < min_face_px:
            raise ValueError(
                f"expected min_face_px of at least {_WINDOW_PX} and long_side_px of at least as much, "
                f"got {min_face_px} and {long_side_px}"
            )
        _check_engine("pnet", pnet, None, {SCORES, BOXES})
        _check_engine("rnet", rnet, RNET_SIZE_PX, {SCORES, BOXES})
        _check_engine("onet", onet, ONET_SIZE_PX, {SCORES, BOXES, POINTS})
        self._pnet, self._rnet, self._onet = pnet, rnet, onet
        self._min_score = min_score
        self._proposal_scores = proposal_scores
        self._min_face_px = min_face_px
        self._long_side_px = long_side_px

    def detect(self, images: Sequence[Image]) -> list[Faces]:
        """Find the faces in each image; see ``Detector.detect``."""
        check_images(images)
        boxes = [
            Letterbox.fit((i.shape[1], i.shape[0]), long_side_px=self._long_side_px, multiple=1)
            for i in images
        ]
        small = [_shrunk(image, box) for image, box in zip(images, boxes, strict=True)]
        found = self._output(small, self._refine(small, self._propose(small)))
        return [faces.scaled(box.to_image) for faces, box in zip(found, boxes, strict=True)]

    def _propose(self, images: Sequence[Image]) -> list[FloatArray]:
        """Squares of each image that P-Net thinks are faces."""
        groups: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, image in enumerate(images):
            groups[image.shape].append(index)
        proposals: list[FloatArray] = [np.empty((0, 4), np.float32)] * len(images)
        for members in groups.values():
            levels = [
                self._propose_level([images[i] for i in members], size_hw)
                for size_hw in pyramid_sizes(images[members[0]].shape[:2], min_face_px=self._min_face_px)
            ]
            for row, index in enumerate(members):
                if levels:
                    proposals[index] = _best_windows([level[row] for level in levels])
        return proposals

    def _propose_level(self, images: Sequence[Image], size_hw: tuple[int, int]) -> list[FloatArray]:
        height, width = size_hw
        pixels = np.zeros((len(images), height, width, 3), np.uint8)
        for image, level in zip(images, pixels, strict=True):
            cv2.resize(image, (width, height), dst=level, interpolation=cv2.INTER_AREA)
        outputs = _run(self._pnet, pixels, largest=_LARGEST_LEVEL_BATCH)
        stretch = np.divide(images[0].shape[1::-1], (width, height))
        return [
            windows(scores[0], edges, stretch_xy=stretch, min_score=self._proposal_scores[0])
            for scores, edges in zip(outputs[SCORES], outputs[BOXES], strict=True)
        ]

    def _refine(self, images: Sequence[Image], proposals: Sequence[FloatArray]) -> list[FloatArray]:
        """The squares that R-Net takes for faces too, moved to where it sees them."""
        refined = []
        for squares, outputs in self._look(self._rnet, images, proposals, RNET_SIZE_PX):
            scores = outputs[SCORES][:, 0]
            rows = np.flatnonzero(scores > self._proposal_scores[1])
            rows = rows[keep_best(squares[rows], scores[rows], max_iou=_STAGE_IOU)]
            refined.append(squared(moved(squares[rows], outputs[BOXES][rows])))
        return refined

    def _output(self, images: Sequence[Image], proposals: Sequence[FloatArray]) -> list[Faces]:
        """The squares that O-Net takes for faces, with landmarks."""
        found = []
        for squares, outputs in self._look(self._onet, images, proposals, ONET_SIZE_PX):
            scores = outputs[SCORES][:, 0]
            rows = np.flatnonzero(scores >= self._min_score)
            sides = squares[rows, 2:] - squares[rows, :2]
            points = outputs[POINTS][rows].reshape(-1, 2, 5).transpose(0, 2, 1)
            landmarks = squares[rows, None, :2] + points * sides[:, None]
            boxes = moved(squares[rows], outputs[BOXES][rows])
            faces = Faces(boxes, scores[rows].astype(np.float32), landmarks.astype(np.float32))
            found.append(faces[uncovered(boxes, faces.scores, most=_MOST_COVERED)])
        return found

    def _look(
        self, engine: Engine, images: Sequence[Image], squares: Sequence[FloatArray], size_px: int
    ) -> list[tuple[FloatArray, Arrays]]:
        """Run a network on the squares of all images together; each image's squares beside its outputs."""
        crops = [cut_squares(i, s, size_px=size_px) for i, s in zip(images, squares, strict=True)]
        outputs = _run(engine, np.concatenate([np.empty((0, size_px, size_px, 3), np.uint8), *crops]))
        ends = np.cumsum([len(each) for each in squares])
        return [
            (each, {name: values[end - len(each) : end] for name, values in outputs.items()})
            for each, end in zip(squares, ends, strict=True)
        ]


def pyramid_sizes(size_hw: tuple[int, ...], *, min_face_px: int) -> list[tuple[int, int]]:
    """Sizes to which an image is resized so that P-Net's window fits ever larger faces.

    Args:
        size_hw: Height and width of the image, pixels.
        min_face_px: Side of the smallest face.

    Returns:
        Heights and widths, largest first, all at least P-Net's window; none for an image that is smaller
        than the smallest face.
    """
    share = 1.0
    sizes = []
    while min(size_hw) * share >= min_face_px:
        scale = share * _WINDOW_PX / min_face_px
        height, width = (max(_WINDOW_PX, round(side * scale)) for side in size_hw)
        sizes.append((height, width))
        share *= _PYRAMID_FACTOR
    return sizes


def windows(
    scores: FloatArray, edges: FloatArray, *, stretch_xy: npt.NDArray[np.float64], min_score: float
) -> FloatArray:
    """Read the windows of one level out of P-Net's outputs.

    Args:
        scores: float32 (rows, columns), 0..1.
        edges: float32 (4, rows, columns).
        stretch_xy: float64 (2,): factors that take the level's pixels to the image's.
        min_score: Windows below are left out, 0..1.

    Returns:
        float32 (N, 9), highest score first: left, top, right, bottom (pixels of the image), score, edges;
        without those that overlap with a better one.
    """
    rows, columns = np.nonzero(scores >= min_score)
    corners = np.stack([columns, rows], axis=1) * _STRIDE_PX
    boxes = np.concatenate([corners, corners + _WINDOW_PX], axis=1) * np.tile(stretch_xy, 2)
    values = np.column_stack([boxes, scores[rows, columns], edges[:, rows, columns].T]).astype(np.float32)
    return values[keep_best(values[:, :4], values[:, 4], max_iou=_LEVEL_IOU)]


def _best_windows(levels: Sequence[FloatArray]) -> FloatArray:
    """The best windows of all levels, moved by their edges, as squares, (N, 4)."""
    values = np.concatenate(levels)
    values = values[keep_best(values[:, :4], values[:, 4], max_iou=_STAGE_IOU)]
    return squared(moved(values[:, :4], values[:, 5:]))


def keep_best(boxes_xyxy: FloatArray, scores: FloatArray, *, max_iou: float) -> npt.NDArray[np.intp]:
    """Greedy non-maximum suppression among the 2,000 best.

    Args:
        boxes_xyxy: float32 (N, 4).
        scores: float32 (N,).
        max_iou: Of two boxes that overlap more, the one of lower score goes.

    Returns:
        Rows that stay, highest score first.
    """
    if len(scores) == 0:
        return np.empty(0, np.intp)
    boxes_xywh = np.concatenate([boxes_xyxy[:, :2], boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]], axis=1)
    kept = cv2.dnn.NMSBoxes(
        boxes_xywh.astype(np.float64).tolist(), scores.tolist(), 0.0, max_iou, top_k=_MOST_WINDOWS
    )
    return np.asarray(kept, np.intp)


def uncovered(boxes_xyxy: FloatArray, scores: FloatArray, *, most: float) -> npt.NDArray[np.intp]:
    """Greedy suppression by the share of the smaller box that is covered, so that no face lies in another.

    Args:
        boxes_xyxy: float32 (N, 4).
        scores: float32 (N,).
        most: Of two boxes of which the smaller is covered by more than this share, the one of lower score
            goes.

    Returns:
        Rows that stay, highest score first.
    """
    order = np.argsort(-scores, kind="stable")
    areas = np.clip(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 0, None).prod(axis=1)
    kept: list[int] = []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(int(best))
        top_left = np.maximum(boxes_xyxy[best, :2], boxes_xyxy[rest, :2])
        bottom_right = np.minimum(boxes_xyxy[best, 2:], boxes_xyxy[rest, 2:])
        common = np.clip(bottom_right - top_left, 0, None).prod(axis=1)
        order = rest[common <= most * np.minimum(areas[best], areas[rest])]
    return np.array(kept, np.intp)


def moved(boxes_xyxy: FloatArray, edges: FloatArray) -> FloatArray:
    """Move each edge by a share of the box's side.

    Args:
        boxes_xyxy: float32 (N, 4).
        edges: float32 (N, 4).

    Returns:
        float32 (N, 4).
    """
    sides = np.tile(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 2)
    return np.asarray(boxes_xyxy + edges * sides, np.float32)


def squared(boxes_xyxy: FloatArray) -> FloatArray:
    """The square around each box's centre that has the box's longer side.

    Args:
        boxes_xyxy: float32 (N, 4).

    Returns:
        float32 (N, 4).
    """
    centres = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2
    halves = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).max(axis=1, keepdims=True, initial=0) / 2
    return np.asarray(np.concatenate([centres - halves, centres + halves], axis=1), np.float32)


def cut_squares(image: Image, boxes_xyxy: FloatArray, *, size_px: int) -> npt.NDArray[np.uint8]:
    """Cut out boxes and resize them, all in one go; each pixel is the mean of the area that it covers.

    Means over boxes of any place and size come from the image's summed area table (Crow, "Summed-area tables
    for texture mapping", 1984), read between its entries.

    Args:
        image: uint8 (H, W, 3).
        boxes_xyxy: float32 (N, 4), pixels; may reach beyond the image.
        size_px: Side of the result.

    Returns:
        uint8 (N, size_px, size_px, 3); black where the image ends, and where a box has no area.
    """
    height, width = image.shape[:2]
    sums = np.asarray(cv2.integral(image, sdepth=cv2.CV_64F), np.float64)
    steps = np.linspace(0, 1, size_px + 1)
    low, high = boxes_xyxy[:, :2].astype(np.float64), boxes_xyxy[:, 2:].astype(np.float64)
    grid = low[:, None] + (high - low)[:, None] * steps[:, None]
    corners = _between(sums, np.clip(grid[..., 1], 0, height), np.clip(grid[..., 0], 0, width))
    cells = np.diff(np.diff(corners, axis=1), axis=2)
    areas = np.clip(high - low, 0, None).prod(axis=1) / size_px**2
    means = cells / np.maximum(areas, 1e-9)[:, None, None, None]
    return np.asarray(np.clip(np.rint(means), 0, 255), np.uint8)


def _between(
    sums: npt.NDArray[np.float64], ys: npt.NDArray[np.float64], xs: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Read a table between its entries at each (y, x): (N, S) and (N, S) to (N, S, S, 3)."""
    top = np.minimum(ys.astype(np.intp), sums.shape[0] - 2)
    left = np.minimum(xs.astype(np.intp), sums.shape[1] - 2)
    down, right = (ys - top)[:, :, None, None], (xs - left)[:, None, :, None]
    rows, columns = top[:, :, None], left[:, None, :]
    upper = sums[rows, columns] * (1 - right) + sums[rows, columns + 1] * right
    lower = sums[rows + 1, columns] * (1 - right) + sums[rows + 1, columns + 1] * right
    between: npt.NDArray[np.float64] = upper * (1 - down) + lower * down
    return between


def _shrunk(image: Image, box: Letterbox) -> Image:
    width, height = box.canvas_wh
    canvas = np.zeros((height, width, 3), np.uint8)
    box.draw(image, canvas)
    return canvas


def _run(engine: Engine, pixels: npt.NDArray[np.uint8], *, largest: int = _LARGEST_CROP_BATCH) -> Arrays:
    """Run any number of images in batches."""
    if len(pixels) == 0:
        shapes = {spec.name: [size or 0 for size in spec.shape[1:]] for spec in engine.outputs}
        return {name: np.empty((0, *shape), np.float32) for name, shape in shapes.items()}
    calls: list[Arrays] = []
    start = 0
    for size in batch_sizes(len(pixels), largest=min(largest, engine.max_batch or largest)):
        batch = np.ascontiguousarray(pixels[start : start + size])
        calls.append(engine.infer({engine.inputs[0].name: batch}))
        start += size
    return {name: np.concatenate([call[name] for call in calls]) for name in calls[0]}


def _check_engine(name: str, engine: Engine, size_px: int | None, outputs: set[str]) -> None:
    found = {spec.name for spec in engine.outputs}
    shapes = [spec.shape[1:] for spec in engine.inputs]
    if found != outputs or shapes != [(size_px, size_px, 3)]:
        raise ValueError(
            f"{name}: expected one input (N, {size_px}, {size_px}, 3) and the outputs {sorted(outputs)}, "
            f"got {shapes} and {sorted(found)}"
        )
