"""Find faces with YuNet, batched, on images of any size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import numpy as np

from engine.batching import batch_sizes
from engine.faces import Faces, FloatArray, Image
from engine.geometry import Letterbox
from engine.protocol import Arrays, Engine
from engine.vision.detection import check_images, suppress

_STRIDES: Final = (8, 16, 32)
_OUTPUTS: Final = frozenset(
    f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in _STRIDES
)
_LARGEST_BATCH: Final = 4


class FaceDetector:
    """YuNet (Wu and others, "YuNet: A Tiny Millisecond-level Face Detector", 2023) on an engine.

    ``detect`` may be called from several threads.

    Args:
        engine: Takes ``pixels``, uint8 (N, H, W, 3) BGR, any multiples of 32; gives YuNet's outputs.
        min_score: Faces below this confidence are left out, 0..1. Trackers use faces of low confidence to
            hold a track, so the default is low; new tracks want about 0.6.
        nms_iou: Of two boxes that overlap more than this, the one of lower confidence is left out, 0..1.
        long_side_px: Images are shrunk, never enlarged, until their longer side has at most so many pixels.
            Faces need about 10 pixels then.

    Raises:
        ValueError: A number is out of range, or the engine is not YuNet's.
    """

    def __init__(
        self, engine: Engine, *, min_score: float = 0.3, nms_iou: float = 0.3, long_side_px: int = 640
    ) -> None:
        if not 0 < min_score < 1 or not 0 < nms_iou < 1:
            raise ValueError(f"expected min_score and nms_iou between 0 and 1, got {min_score} and {nms_iou}")
        if long_side_px < _STRIDES[-1]:
            raise ValueError(f"long_side_px: expected at least {_STRIDES[-1]}, got {long_side_px}")
        if not is_yunet(engine):
            found = sorted(spec.name for spec in engine.outputs)
            raise ValueError(f"engine: expected YuNet's outputs {sorted(_OUTPUTS)}, got {found}")
        self._engine = engine
        self._input = engine.inputs[0].name
        self._min_score = min_score
        self._nms_iou = nms_iou
        self._long_side_px = long_side_px
        self._largest_batch = min(_LARGEST_BATCH, engine.max_batch or _LARGEST_BATCH)

    def detect(self, images: Sequence[Image]) -> list[Faces]:
        """Find the faces in each image. Images whose shrunk sizes round to the same canvas share a batch.

        Args:
            images: uint8 (H, W, 3) BGR, of any sizes.

        Returns:
            Faces of each image, in its own pixels, highest score first.

        Raises:
            ValueError: An image has another dtype or shape, or no pixels.
            ModelError: The engine failed.
        """
        check_images(images)
        boxes = [
            Letterbox.fit(
                (image.shape[1], image.shape[0]), long_side_px=self._long_side_px, multiple=_STRIDES[-1]
            )
            for image in images
        ]
        groups: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        for index, box in enumerate(boxes):
            groups[box.canvas_wh].append(index)
        found: dict[int, Faces] = {}
        for members in groups.values():
            waiting = iter(members)
            for size in batch_sizes(len(members), largest=self._largest_batch):
                batch = [next(waiting) for _ in range(size)]
                faces = self._detect_batch([images[i] for i in batch], [boxes[i] for i in batch])
                found.update(zip(batch, faces, strict=True))
        return [found[index] for index in range(len(images))]

    def _detect_batch(self, images: Sequence[Image], boxes: Sequence[Letterbox]) -> list[Faces]:
        width, height = boxes[0].canvas_wh
        canvases = np.zeros((len(images), height, width, 3), np.uint8)
        for image, box, canvas in zip(images, boxes, canvases, strict=True):
            box.draw(image, canvas)
        outputs = self._engine.infer({self._input: canvases})
        return [
            suppress(decode(outputs, row, width, min_score=self._min_score), max_iou=self._nms_iou).scaled(
                box.to_image
            )
            for row, box in enumerate(boxes)
        ]


def is_yunet(engine: Engine) -> bool:
    """Whether an engine has YuNet's outputs and one input."""
    return {spec.name for spec in engine.outputs} == _OUTPUTS and len(engine.inputs) == 1


def decode(outputs: Arrays, row: int, canvas_width_px: int, *, min_score: float) -> Faces:
    """Read the faces of one image out of YuNet's outputs.

    A cell (column, row) of stride s holds ``cls`` and ``obj`` (score: the root of their product), a box as
    offset of its centre in cells and logarithm of its size in cells, and landmarks as offsets in cells.

    Args:
        outputs: float32 ``cls_s`` and ``obj_s`` (N, cells, 1), ``bbox_s`` (N, cells, 4), ``kps_s``
            (N, cells, 10) for the strides 8, 16 and 32.
        row: Which image of the batch.
        canvas_width_px: Width of the network's input.
        min_score: Cells below are left out.

    Returns:
        Faces in canvas pixels, in no order, overlapping ones included.
    """
    levels = [
        _decode_level(
            *(outputs[f"{kind}_{stride}"][row] for kind in ("cls", "obj", "bbox", "kps")),
            stride=stride,
            columns=canvas_width_px // stride,
            min_score=min_score,
        )
        for stride in _STRIDES
    ]
    return Faces(
        np.concatenate([level.boxes_xyxy for level in levels]),
        np.concatenate([level.scores for level in levels]),
        np.concatenate([level.landmarks_xy for level in levels]),
    )


def _decode_level(
    cls: FloatArray,
    obj: FloatArray,
    bbox: FloatArray,
    kps: FloatArray,
    *,
    stride: int,
    columns: int,
    min_score: float,
) -> Faces:
    squared = np.clip(cls[:, 0], 0, 1) * np.clip(obj[:, 0], 0, 1)
    cells = np.flatnonzero(squared >= min_score**2)
    if len(cells) == 0:
        return Faces.none()
    origins = np.stack([cells % columns, cells // columns], axis=1).astype(np.float32)
    centres = (origins + bbox[cells, :2]) * stride
    halves = np.exp(bbox[cells, 2:]) * (stride / 2)
    return Faces(
        np.concatenate([centres - halves, centres + halves], axis=1).astype(np.float32),
        np.sqrt(squared[cells]).astype(np.float32),
        ((kps[cells].reshape(-1, 5, 2) + origins[:, None]) * stride).astype(np.float32),
    )
