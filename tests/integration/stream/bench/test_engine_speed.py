from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import cv2
import pytest
from rich.console import Console

from engine.backends.benchmarking import measure_peak
from engine.errors import ConfigError, ModelError, SinkError
from stream.bench.engine_speed import bench_engine
from stream.bench.measurements import STOCK, EngineBench, Point
from stream.bench.plots import draw


def point(engine: str, precision: str, batch: int) -> Point:
    return Point("made-up", engine, precision, batch, 9, 1.0, 2.0, 3.0, 500.0 * batch, 10**8, 40.0, 0.4, 2.0)


BENCH = EngineBench(
    tuple(point(*key, batch) for batch in (1, 8) for key in ((STOCK, "fp32"), ("tensorrt", "fp16"))), {}, {}
)


def test_a_run_measures_what_it_is_asked_to(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=120)
    json_out, plot_out = tmp_path / "bench.json", tmp_path / "bench.png"
    bench = bench_engine(
        ["yunet", "sface"],
        console=console,
        batches=[1, 2],
        precisions=["fp32", "bf16"],
        size_wh=(96, 64),
        seconds=0.02,
        json_out=json_out,
        plot_out=plot_out,
        command=["facestream", "bench", "engine"],
    )
    keys = {(p.model, p.engine, p.precision, p.batch) for p in bench.points}
    for model in ("yunet-2023mar", "sface-2021dec"):
        for batch in (1, 2):
            for engine in (STOCK, "openvino", "onnxruntime"):
                assert (model, engine, "fp32", batch) in keys
    for p in bench.points:
        assert 0 < p.least_ms <= p.p50_ms <= p.p99_ms
        assert p.gflops == pytest.approx(2 * p.macs * p.batch / p.p50_ms / 1e6)
        assert p.share_of_peak == pytest.approx(p.gflops / bench.peak_gflops[p.precision])
        assert p.times_stock == pytest.approx(1) or p.engine != STOCK
    assert {p.macs for p in bench.points if p.model == "sface-2021dec"} == {574_138_880}
    assert any("onnxruntime bf16: " in reason for reason in bench.left_out)
    text = console.file.getvalue()
    assert STOCK in text
    assert "sface-2021dec: 574 million" in text
    tree = json.loads(json_out.read_text())
    assert tree["command"] == ["facestream", "bench", "engine"]
    assert tree["machine"]["processor"]
    assert len(tree["models"]["sface-2021dec"]["sha256"]) == 64
    assert tree["versions"]["onnxruntime"]
    assert len(tree["points"]) == len(bench.points)
    assert cv2.imread(str(plot_out)).std() > 10


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_plot_takes_engines_that_it_does_not_know(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"plot{suffix}"
    draw(BENCH, path)
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG") if suffix == ".png" else b"</svg>" in data


def test_what_cannot_be_drawn_is_said_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"ends in \.png or \.svg"):
        bench_engine(console=Console(), plot_out=tmp_path / "plot.jpg")
    with pytest.raises(SinkError, match="cannot write the plot"):
        draw(BENCH, tmp_path / "none" / "plot.png")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r'pip install "facestream\[bench\]"'):
        bench_engine(console=Console(), plot_out=tmp_path / "plot.png")


@pytest.mark.parametrize("arguments", [{"batches": []}, {"batches": [0]}, {"threads": 0}, {"seconds": 0}])
def test_numbers_out_of_range(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected batches and threads of at least 1"):
        bench_engine(console=Console(), **arguments)


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="cannot write the figures"):
        bench_engine(
            ["yunet"],
            console=Console(file=io.StringIO()),
            batches=[1],
            kinds=[],
            size_wh=(32, 32),
            seconds=0.01,
            json_out=tmp_path / "none" / "bench.json",
        )


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_peak_is_a_possible_number(precision: str) -> None:
    macs_per_s = measure_peak(precision, threads=1, seconds=0.05)
    assert 1e8 < macs_per_s < 1e14


def test_a_peak_needs_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "engine.backends.openvino", None)
    with pytest.raises(ModelError, match=r"pip install (--force-reinstall )?openvino"):
        measure_peak("fp32", threads=1, seconds=0.1)
