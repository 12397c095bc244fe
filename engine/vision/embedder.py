"""Turn aligned faces into unit vectors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from engine.batching import batch_sizes
from engine.embeddings import Embeddings, unit_rows
from engine.errors import ModelError
from engine.faces import FloatArray, Image
from engine.models.alignment import align_faces
from engine.models.package import Likeness, ModelPackage, Patch, canvas_wh
from engine.protocol import Engine
from engine.vision.landmark_refinement import SecondLook

_LARGEST_BATCH: Final = 4
_SAME_SCALE: Final = Likeness()


class Embedder(Protocol):
    """Turns the faces of an image into unit vectors. May be called from several threads."""

    def align(self, image: Image, landmarks_xy: FloatArray) -> npt.NDArray[np.uint8]:
        """Cut out faces: landmarks (N, 5, 2) to crops (N, H, W, 3)."""

    def portraits(self, crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The part of crops that ``engine.vision.quality.face_quality`` judges."""

    def embed(self, crops: npt.NDArray[np.uint8]) -> Embeddings:
        """Crops (N, H, W, 3) to float32 (N, D), unit rows."""


class FaceEmbedder:
    """A face embedding model on an engine, with the alignment that it was trained with.

    ``align`` and ``embed`` may be called from several threads.

    Args:
        engine: Takes ``pixels``, uint8 (N, size, size, 3) BGR; gives float32 (N, D).
        model: Name of the model; embeddings of different models do not compare.
        sha256: Of its ONNX file; None if not needed.
        patches: The aligned views of the face that the model looks at; side by side they are a crop.
        likeness: Brings the model's cosines to the scale that all models share.
        flip: Add the embedding of the mirrored crop: twice the work, slightly more accurate.
        second_look: Finds landmarks again before faces are cut out; None takes them as they are given.
        largest_batch: Most crops in one call of the engine.

    Raises:
        ValueError: The engine does not fit, or a number is out of range.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        model: str,
        sha256: str | None = None,
        patches: Sequence[Patch],
        likeness: Likeness = _SAME_SCALE,
        flip: bool = False,
        second_look: SecondLook | None = None,
        largest_batch: int = _LARGEST_BATCH,
    ) -> None:
        width, height = canvas_wh(patches)
        if largest_batch < 1:
            raise ValueError(f"largest_batch: expected at least 1, got {largest_batch}")
        if len(engine.inputs) != 1 or engine.inputs[0].shape[1:] != (height, width, 3):
            raise ValueError(f"engine: expected one input (N, {height}, {width}, 3), got {engine.inputs}")
        if len(engine.outputs) != 1 or len(engine.outputs[0].shape) != 2 or not engine.outputs[0].shape[1]:
            raise ValueError(f"engine: expected one output (N, D), got {engine.outputs}")
        self.model, self.sha256 = model, sha256
        self.likeness = likeness
        self.crop_shape = (height, width, 3)
        self.embedding_size = int(engine.outputs[0].shape[1])
        self._engine = engine
        self._patches = tuple(patches)
        self.flip = flip
        self._second_look = second_look
        self._largest_batch = min(largest_batch, engine.max_batch or largest_batch)

    @classmethod
    def from_package(
        cls,
        package: ModelPackage,
        engine: Engine,
        *,
        flip: bool = False,
        second_look: SecondLook | None = None,
    ) -> FaceEmbedder:
        """The embedder of a model package, on an engine that was opened for it.

        Args:
            package: The model.
            engine: Of it.
            flip: Whether the embedding of the mirrored face is added.
            second_look: Finds landmarks again before faces are cut out; None takes them as they are given.

        Raises:
            ValueError: The package is not an embedder's.
            ModelError: The model's embeddings have another size than the package says.
        """
        if package.task != "embedder":
            raise ValueError(f"{package.name}: expected an embedder, got a {package.task}")
        embedder = cls(
            engine,
            model=package.name,
            sha256=package.sha256,
            patches=package.patches,
            likeness=Likeness.of(package.thresholds),
            flip=flip,
            second_look=second_look,
        )
        if embedder.embedding_size != package.embedding_size:
            raise ModelError(
                f"{package.name}: the manifest says {package.embedding_size} numbers an embedding, "
                f"the model gives {embedder.embedding_size}; correct embedding_size"
            )
        return embedder

    def align(self, image: Image, landmarks_xy: FloatArray) -> npt.NDArray[np.uint8]:
        """Cut out upright faces.

        Args:
            image: uint8 (H, W, 3) BGR.
            landmarks_xy: float32 (N, 5, 2), pixels.

        Returns:
            uint8 (N, *crop_shape) BGR.

        Raises:
            ModelError: The engine of the second look failed.
        """
        if self._second_look is not None:
            landmarks_xy = self._second_look.landmarks(image, landmarks_xy)
        return align_faces(image, landmarks_xy, self._patches)

    def portraits(self, crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The first view of each crop: what there is to see, and what ``face_quality`` judges.

        Its sharpness is made for ArcFace's crop. In dlib's, where faces are half as large again, it comes out
        lower: over 250 photographs of LFW, .95, .85, .64, .47 and .37 instead of .98, .95, .83, .68 and .54
        when they are blurred by 0, 1, 2, 3 and 4 pixels.

        Args:
            crops: uint8 (N, *crop_shape) BGR, as ``align`` gives them.

        Returns:
            uint8 (N, S, S, 3) BGR, a part of ``crops``.
        """
        side = self._patches[0].size_px
        return crops[:, :side, :side]

    def warm_up(self) -> None:
        """Let the engine prepare itself for single faces, so that the first one does not wait.

        Raises:
            ModelError: The engine failed.
        """
        self._run(np.zeros((1, *self.crop_shape), np.uint8))

    def embed(self, crops: npt.NDArray[np.uint8]) -> Embeddings:
        """Embed aligned faces.

        Args:
            crops: uint8 (N, *crop_shape) BGR, as ``align`` gives them; from any images.

        Returns:
            float32 (N, D), rows of unit length.

        Raises:
            ValueError: The crops have another shape or dtype.
            ModelError: The engine failed.
        """
        expected = self.crop_shape
        if crops.ndim != 4 or crops.shape[1:] != expected or crops.dtype != np.uint8:
            raise ValueError(f"crops: expected uint8 (N, *{expected}), got {crops.dtype} {crops.shape}")
        vectors = self._run(crops)
        if self.flip:
            vectors = unit_rows(vectors) + unit_rows(self._run(self._mirrored(crops)))
        return unit_rows(vectors)

    def _mirrored(self, crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Each patch mirrored in its place."""
        mirrored = np.empty_like(crops)
        left = 0
        for patch in self._patches:
            columns = slice(left, left + patch.size_px)
            mirrored[:, :, columns] = crops[:, :, columns][:, :, ::-1]
            left += patch.size_px
        return mirrored

    def _run(self, crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Batches are begun before the ones before have ended, so that copies overlap with work."""
        name, output = self._engine.inputs[0].name, self._engine.outputs[0].name
        vectors = np.empty((len(crops), self.embedding_size), np.float32)
        sizes = batch_sizes(len(crops), largest=self._largest_batch)
        if len(sizes) == 1:
            vectors[:] = self._engine.infer({name: np.ascontiguousarray(crops)})[output]
            return vectors
        ends = list(accumulate(sizes))
        rows = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
        calls = [self._engine.submit({name: np.ascontiguousarray(crops[each])}) for each in rows]
        for each, call in zip(rows, calls, strict=True):
            vectors[each] = call.result()[output]
        return vectors
