"""Tables about models and engines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from stream.console.terminal import text_table

if TYPE_CHECKING:
    from engine.compilation.store import CompiledEngine
    from engine.models.package import ModelPackage


def model_table(package: ModelPackage) -> Table:
    """All that is known of a model, a line each; what it does not have is left out."""
    table = text_table("", package.name)
    size = package.input_size_wh
    order = package.colour_order.upper()
    means = ", ".join(f"{mean:g}" for mean in package.mean)
    mean = f"{package.mean[0]:g}" if len(set(package.mean)) == 1 else f"({means})"
    rows = {
        "task": package.task,
        "file": str(package.onnx_path),
        "SHA-256": package.sha256,
        "licence": package.licence,
        "provenance": package.provenance,
        "training run": package.training_run or "not known",
        "input": "any size" if size is None else f"{size[0]} by {size[1]} pixels",
        "preprocessing": f"{order}, (pixel - {mean}) * {package.scale:g}",
        "embedding": "" if package.embedding_size is None else f"{package.embedding_size} numbers",
        "same person from": ", ".join(
            f"cosine {each.similarity:g}" + ("" if each.far is None else f" (false accept rate {each.far:g})")
            for each in package.thresholds
        ),
        "compares with": ", ".join(each[:12] for each in package.harmonic_with) or "itself alone",
    }
    for patch in package.patches:
        points = " ".join(f"({x:.1f} {y:.1f})" for x, y in patch.template_xy)
        rows[f"aligned at {patch.size_px} px"] = points
    for name, value in rows.items():
        if value:
            table.add_row(name, value)
    return table


def engine_table(engines: Sequence[CompiledEngine]) -> Table:
    """Compiled engines, one a line, with what the gate and the data sets said of them."""
    table = text_table("engine", "precision", "for", "parity", "found")
    for engine in engines:
        key = engine.key
        found = "" if engine.parity is None else str(engine.parity)
        accuracy = "".join(
            f"; {each.dataset}: {each.accuracy:.2%}, fp32 {each.reference:.2%}" for each in engine.accuracies
        )
        table.add_row(
            f"{key.kind} {key.version}",
            key.precision,
            ", ".join(key.targets),
            engine.verdict,
            found + accuracy,
        )
    return table
