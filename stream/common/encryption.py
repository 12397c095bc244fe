"""Encryption at rest, for what identifies people: galleries and the spool.

AES-256-GCM (NIST SP 800-38D) of the library ``cryptography``, with a random nonce for each piece and the
piece's context bound to it: a sealed piece can be neither read nor changed nor put in another's place.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from engine.errors import ConfigError

KEY_VARIABLE: Final = "FACESTREAM_KEY"
"""Environment variable that holds the key, base64."""

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_ADVICE: Final = f"make one: export {KEY_VARIABLE}=$(head -c 32 /dev/urandom | base64)"


class Sealer:
    """Seals and opens pieces of bytes under one key. Threads may share it.

    Args:
        key: 32 random bytes.

    Raises:
        ValueError: There are more or fewer.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != _KEY_BYTES:
            raise ValueError(f"key: expected {_KEY_BYTES} bytes, got {len(key)}")
        self._key = key
        self._cipher = AESGCM(key)
        self._fingerprint = hashlib.sha256(b"facestream key check\0" + key).hexdigest()[:16]

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Sealer | None:
        """The sealer of the key in ``FACESTREAM_KEY``; None where there is none.

        Args:
            environment: Such as ``os.environ``.

        Raises:
            ConfigError: What stands there is no key; does not repeat it.
        """
        text = environment.get(KEY_VARIABLE, "")
        if not text:
            return None
        try:
            return cls(base64.b64decode(text, validate=True))
        except (binascii.Error, ValueError):
            raise ConfigError(
                f"{KEY_VARIABLE}: expected {_KEY_BYTES} bytes as base64; {_ADVICE}"
            ) from None  # the cause may hold it

    def __repr__(self) -> str:
        return f"Sealer(key {self._fingerprint})"

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that tell keys apart and tell nothing of them; kept beside what is sealed."""
        return self._fingerprint

    def for_file(self, salt: bytes) -> Sealer:
        """A sealer with a key of its own for one file (HKDF, RFC 5869).

        Random nonces are safe for 2**32 pieces under one key (SP 800-38D, section 8.3); files that are
        written piece by piece, forever, need keys that end with them.

        Args:
            salt: 16 random bytes or more, kept in the file in the clear.
        """
        derive = HKDF(hashes.SHA256(), _KEY_BYTES, salt=salt, info=b"facestream file")
        return Sealer(derive.derive(self._key))

    def seal(self, plain: bytes, *, context: bytes) -> bytes:
        """Encrypt.

        Args:
            plain: Any bytes.
            context: What this piece is and where it belongs; not kept, and needed again to open it.

        Returns:
            Nonce, ciphertext and tag: 28 bytes more than ``plain``.
        """
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plain, context)

    def open(self, sealed: bytes, *, context: bytes) -> bytes:
        """Decrypt.

        Args:
            sealed: As ``seal`` made it.
            context: The one that it was sealed with.

        Raises:
            ValueError: It was sealed with another key or for another place, or has been changed.
        """
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], context)
        except (InvalidTag, ValueError) as exc:
            raise ValueError("encrypted with another key or for another place, or damaged") from exc
