"""What ``bench engine`` measures: the nouns that its table, its file and its plot share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

STOCK: Final = "onnxruntime, stock graph"
"""The baseline: the model as it is, float32 in, nothing rewritten."""


@dataclass(frozen=True, slots=True)
class Point:
    """What one engine did with one model at one batch size.

    Attributes:
        model: Name of the package.
        engine: Kind of engine, or ``STOCK``.
        precision: That it computed in.
        batch: Images in a call.
        calls: That were timed.
        least_ms: The quickest call.
        p50_ms: The median call.
        p99_ms: What 99 of 100 calls do not exceed.
        images_per_s: One call after the other.
        macs: Multiply-accumulates of one image.
        gflops: Achieved in the median call, two operations for a multiply-accumulate.
        share_of_peak: Of what the processor was measured to do in that precision, 0..1; None where that
            is not known.
        times_stock: Images a second in the median call, as a multiple of the baseline's in this run.
    """

    model: str
    engine: str
    precision: str
    batch: int
    calls: int
    least_ms: float
    p50_ms: float
    p99_ms: float
    images_per_s: float
    macs: int
    gflops: float
    share_of_peak: float | None
    times_stock: float


@dataclass(frozen=True, slots=True)
class EngineBench:
    """A run of ``bench_engine``.

    Attributes:
        points: Measured, in the order of models, batches and engines.
        peak_gflops: What the processor was measured to do, by precision.
        left_out: Engines and precisions that do not run here, with the reason; and for which models.
    """

    points: tuple[Point, ...]
    peak_gflops: dict[str, float]
    left_out: dict[str, list[str]]
