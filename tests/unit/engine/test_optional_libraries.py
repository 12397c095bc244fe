"""A library that is missing, and one that is there and broken, are told apart wherever one is wanted."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from numpy._core import _multiarray_umath as multiarray

from engine import optional_libraries
from engine.errors import FacestreamError
from engine.optional_libraries import describe, is_installed, that_kill, trouble_with, why_unusable
from stream.cli.errors import one_line_errors

LIBGL = "libGL.so.1: cannot open shared object file: No such file or directory"
ABI = "numpy.dtype size changed, may indicate binary incompatibility"


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a package before the others that fails as real ones do."""

    def put(module: str, statement: str) -> None:
        (tmp_path / f"{module}.py").write_text(statement)
        for name in [each for each in sys.modules if each.partition(".")[0] == module]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.syspath_prepend(str(tmp_path))

    return put


def gone(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    for name in [each for each in sys.modules if each.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)


def test_what_is_there_is_no_trouble() -> None:
    assert is_installed("json")
    assert trouble_with("json", install="pip install json") is None


def test_libraries_that_end_a_process_are_found(broken: Callable[..., None], tmp_path: Path) -> None:
    whole = Path(multiarray.__file__)
    (tmp_path / "cut.so").write_bytes(whole.read_bytes()[:200_000])
    broken("exits", "import os; os._exit(3)")
    broken("raises", "raise ImportError('no')")
    found = that_kill(["json", "cut", "raises", "nolib", "exits", "re"])
    assert found == {"cut": "SIGBUS", "exits": "exit code 3"}


def test_the_doctor_survives_a_library_that_is_cut_short(tmp_path: Path) -> None:
    (tmp_path / "faiss.so").write_bytes(Path(multiarray.__file__).read_bytes()[:200_000])
    done = subprocess.run(
        [sys.executable, "-m", "stream.cli", "doctor"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("extra gallery "))
    assert "faiss is installed but does not load (SIGBUS: a file of it is damaged" in line
    assert "    pip install --force-reinstall faiss-cpu" in done.stdout.splitlines()


def test_what_is_missing_is_not_installed() -> None:
    assert trouble_with("nolib", title="NoLib", install="pip install nolib") == (
        "NoLib is not installed; run: pip install nolib"
    )


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        (
            f"raise ImportError({LIBGL!r})",
            "install the system's libGL.so.1, or run: pip install --force-rein",
        ),
        (f"raise ImportError({ABI!r})", f"({ABI}); run: pip install --force-reinstall 'x[extra]'"),
        ("import nothing_of_this_name", "does not load (No module named 'nothing_of_this_name'); run: "),
        ("raise OSError('undefined\\n  symbol')", "(undefined symbol); run: "),
        ("raise RuntimeError", "(RuntimeError); run: "),
    ],
)
def test_what_is_there_and_fails_says_how(broken: Callable[..., None], statement: str, says: str) -> None:
    broken("frail", statement)
    trouble = trouble_with("frail", title="Frail", install="pip install 'x[extra]'") or ""
    assert trouble.startswith("Frail is installed but does not load (")
    assert says in trouble
    assert "not installed" not in trouble
    assert "\n" not in trouble


def _heif() -> None:
    from engine.vision.image_decoding import _open_heif

    _open_heif(None)


def _plot() -> None:
    from stream.bench.plots import check_plot

    check_plot(Path("plot.svg"))


def _report() -> None:
    from training.report.plots import check_plots

    check_plots()


def _rivals() -> None:
    import numpy as np

    from training.evaluation.clustering import _rivals

    _rivals(np.eye(4, dtype=np.float32), np.arange(4))


def _scan() -> None:
    from engine.search.faiss_scan import _one_thread

    _one_thread()


def _rtx() -> None:
    from engine.backends.tensorrt.bindings import library

    library("tensorrt-rtx")


def _cuda() -> None:
    from engine.backends.cuda import _load_driver

    _load_driver()


def _gi() -> None:
    from stream.video.gstreamer.bindings import _load

    _load.__wrapped__()


@pytest.mark.parametrize(
    ("module", "use"),
    [
        ("pillow_heif", _heif),
        ("matplotlib", _plot),
        ("matplotlib", _report),
        ("sklearn", _rivals),
        ("faiss", _scan),
        ("tensorrt_rtx", _rtx),
        ("pycuda", _cuda),
        ("gi", _gi),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__.strip("_"),
)
def test_every_optional_library(
    module: str, use: Callable[[], None], broken: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(module, f"raise ImportError({LIBGL!r})")
    with pytest.raises(FacestreamError, match=r"is installed but does not load \(libGL\.so\.1: cannot open"):
        use()
    gone(monkeypatch, module)
    with pytest.raises(FacestreamError, match=r"is not installed; run: .*install"):
        use()


def test_a_large_gallery_with_a_broken_faiss_is_told_of(
    broken: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    from engine.search import faiss_scan

    broken("faiss", f"raise ImportError({ABI!r})")
    faiss_scan._loads.cache_clear()
    try:
        assert not faiss_scan.can_scan(128)
        assert not faiss_scan.can_scan(128)
    finally:
        faiss_scan._loads.cache_clear()
    (record,) = caplog.records
    assert f"faiss is installed but does not load ({ABI})" in record.getMessage()


def test_an_import_that_nobody_guards_is_one_line(
    broken: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    broken("frail", f"raise ImportError({LIBGL!r}, name='frail')")
    with pytest.raises(typer.Exit) as end, one_line_errors(debug=False):
        import frail  # noqa: F401
    assert end.value.exit_code == 1
    assert capsys.readouterr().err.startswith("error: frail is installed but does not load (libGL.so.1")
    with pytest.raises(typer.Exit), one_line_errors(debug=False):
        import nothing_of_this_name  # noqa: F401
    assert capsys.readouterr().err == (
        "error: nothing_of_this_name is not installed; run: pip install nothing_of_this_name\n"
    )


def test_an_error_of_the_system_that_nobody_foresaw_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as end, one_line_errors(debug=False):
        Path("/dev/full").write_text("x")
    assert end.value.exit_code == 1
    assert capsys.readouterr().err == "error: facestream: No space left on device; --debug shows where\n"


def test_errors_that_name_no_library() -> None:
    assert describe(ImportError("broken")).startswith("a library does not load (broken)")
    assert "not installed" in why_unusable("nolib", ModuleNotFoundError("x"), install="pip install nolib")
    assert optional_libraries.is_installed("nolib") is False


def test_a_part_of_a_package_is_no_package_to_install() -> None:
    broken = ImportError(
        "/lib/onnxruntime/capi/_state.so: file too short", name="_state", path="/lib/_state.so"
    )
    assert describe(broken) == (
        "a library does not load (/lib/onnxruntime/capi/_state.so: file too short); install facestream again"
    )
