"""One picture of each track, kept in a folder for a limited time. Off by default."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import cv2

from engine.errors import ConfigError, PictureError
from engine.faces import Image
from engine.vision.image_decoding import decode_picture
from stream.common.encryption import Sealer
from stream.common.logs import get_logger
from stream.events.event_types import FaceEvent

log = get_logger(__name__)

_TRACK_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_PLAIN, _SEALED = ".jpg", ".jpg.sealed"
_SWEEP_EVERY_S: Final = 600.0
_DAY_S: Final = 86_400.0
_MOST_BYTES: Final = 20_000_000


class BestShots:
    """Keeps the best shot of each track that leaves, as JPEG, readable by the owner alone.

    A picture that cannot be written is said in the log and costs the run nothing else. Pictures that are
    older than ``keep_days`` are deleted, at the start and then every ten minutes that bring a picture.

    Args:
        folder: Created if missing.
        sealer: Encrypts the pictures; None leaves them plain.
        keep_days: How long a picture is kept; None keeps it forever.

    Raises:
        ConfigError: The folder cannot be made.
        ValueError: ``keep_days`` is not above 0.
    """

    def __init__(self, folder: Path, *, sealer: Sealer | None = None, keep_days: float | None = 30.0) -> None:
        if keep_days is not None and not keep_days > 0:
            raise ValueError(f"keep_days: expected above 0, got {keep_days}")
        self._folder, self._sealer, self._keep_days = folder, sealer, keep_days
        self._swept_at: float | None = None
        self._trouble = ""
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as exc:
            raise ConfigError(
                f"{folder}: cannot be made for pictures ({exc.strerror}); name another folder"
            ) from exc

    def __call__(self, event: FaceEvent, image: Image) -> None:
        """Keep a picture; the pipeline calls it when a track leaves.

        Args:
            event: Whose track id names the picture.
            image: uint8 (H, W, 3) BGR.
        """
        try:
            self._write(event.track_id, image)
        except (OSError, cv2.error, ValueError) as exc:
            if not self._trouble:
                log.warning("best shots cannot be kept", folder=str(self._folder), reason=str(exc))
            self._trouble = str(exc)
        else:
            self._trouble = ""
        now_s = time.time()
        if self._swept_at is None or now_s - self._swept_at >= _SWEEP_EVERY_S:
            self._swept_at = now_s
            self.sweep(now_s=now_s)

    def read(self, track_id: str) -> Image | None:
        """The picture of a track.

        Args:
            track_id: From anywhere; it is not trusted.

        Returns:
            uint8 (H, W, 3) BGR; None where there is none.

        Raises:
            ConfigError: It is sealed with another key, or damaged.
        """
        for path in self._paths(track_id):
            try:
                with path.open("rb") as file:
                    raw = file.read(_MOST_BYTES)
            except OSError:
                continue
            try:
                return decode_picture(self._opened(path, raw, track_id))
            except PictureError as exc:
                raise ConfigError(f"{path}: no picture, or a damaged one ({exc}); delete it") from exc
        return None

    def erase(self, track_ids: Iterable[str]) -> int:
        """Delete the pictures of some tracks.

        Args:
            track_ids: From anywhere; they are not trusted.

        Returns:
            How many pictures there were.

        Raises:
            ConfigError: One cannot be deleted.
        """
        erased = 0
        for track_id in track_ids:
            for path in self._paths(track_id):
                erased += _delete(path)
        return erased

    def sweep(self, *, now_s: float) -> int:
        """Delete the pictures that have been kept long enough.

        Args:
            now_s: Seconds since 1970.

        Returns:
            How many were deleted.
        """
        if self._keep_days is None:
            return 0
        deadline_s, deleted = now_s - self._keep_days * _DAY_S, 0
        try:
            paths = list(self._folder.iterdir())
        except OSError as exc:
            log.warning("old best shots cannot be deleted", folder=str(self._folder), reason=exc.strerror)
            return 0
        for path in paths:
            try:
                if path.name.endswith((_PLAIN, _SEALED)) and path.stat().st_mtime < deadline_s:
                    deleted += _delete(path)
            except (OSError, ConfigError) as exc:
                log.warning("an old best shot cannot be deleted", path=str(path), reason=str(exc))
        return deleted

    def _write(self, track_id: str, image: Image) -> None:
        plain, sealed = self._paths(track_id)
        ok, encoded = cv2.imencode(".jpg", image)
        if not ok:
            raise ValueError(f"a picture of shape {image.shape} cannot be written as JPEG")
        raw, path = encoded.tobytes(), plain
        if self._sealer is not None:
            raw, path = self._sealer.seal(raw, context=_context(track_id)), sealed
        scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        file = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(file, "wb") as out:
                out.write(raw)
            scratch.replace(path)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise

    def _opened(self, path: Path, raw: bytes, track_id: str) -> bytes:
        if not path.name.endswith(_SEALED):
            return raw
        if self._sealer is None:
            raise ConfigError(f"{path}: encrypted; set the key: export FACESTREAM_KEY=…")
        try:
            return self._sealer.open(raw, context=_context(track_id))
        except ValueError as exc:
            raise ConfigError(f"{path}: {exc}; set the key that it was encrypted with") from exc

    def _paths(self, track_id: str) -> tuple[Path, Path]:
        """Where a track's picture lies, plain and sealed."""
        if not _TRACK_ID.fullmatch(track_id):
            return self._folder / ("." + _PLAIN), self._folder / ("." + _SEALED)
        return self._folder / (track_id + _PLAIN), self._folder / (track_id + _SEALED)


def _context(track_id: str) -> bytes:
    return b"best shot " + track_id.encode()


def _delete(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as exc:
        raise ConfigError(
            f"{path}: cannot be deleted ({exc.strerror}); change the folder's permissions"
        ) from exc
    return True
