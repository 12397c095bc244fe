"""TLS to a Kafka broker: the context that an address asks for, and what went wrong in words.

Nothing here knows kafka-python; a context is handed to it ready, so that it never sees the key's password.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

from engine.errors import SinkError
from stream.kafka.address import KafkaAddress

# X509_V_ERR_… of OpenSSL's x509_vfy.h.
_NOT_YET_VALID, _EXPIRED = 9, 10
_UNKNOWN_SIGNER = (2, 18, 19, 20, 21)
_WRONG_NAME = (62, 64)


def tls_context(address: KafkaAddress) -> ssl.SSLContext | None:
    """The context that an address asks for: TLS 1.2 or newer, certificate and host name checked.

    Returns:
        None where the address uses no TLS.

    Raises:
        SinkError: A file cannot be read, holds no certificate or key, or the key does not open or fit.
    """
    if not address.uses_tls:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if address.ca_file is None:
        context.load_default_certs()
    else:
        _check_readable(address.ca_file, "ca")
        try:
            context.load_verify_locations(address.ca_file)
        except ssl.SSLError:
            raise SinkError(f"ca {address.ca_file}: expected certificates in PEM, found none") from None
    load_identity(context, address)
    return context


def load_identity(context: ssl.SSLContext, address: KafkaAddress) -> None:
    """Give a context the certificate and the key that say who we are, where the address names some.

    Args:
        context: Gets them.
        address: Names their files, PEM.

    Raises:
        SinkError: They cannot be read, or do not open or fit.
    """
    if address.cert_file is None:
        return
    key_file = address.key_file or address.cert_file
    _check_readable(address.cert_file, "cert")
    _check_readable(key_file, "key")
    asked = False

    def password() -> str:
        nonlocal asked
        asked = True
        return address.key_password or ""

    try:
        context.load_cert_chain(address.cert_file, key_file, password)
    except (ssl.SSLError, ValueError) as exc:
        if asked and address.key_password is None:
            why = "it is encrypted; give its password: key_password=${NAME}"
        elif asked:
            why = "its password (key_password) is wrong"
        elif getattr(exc, "reason", None) == "KEY_VALUES_MISMATCH":
            why = f"it is not the key of {address.cert_file}"
        else:
            why = f"expected a private key, and a certificate in {address.cert_file}, in PEM"
        raise SinkError(f"key {key_file}: {why}") from None


def explain_tls(error: OSError, address: KafkaAddress) -> str | None:
    """What a failure of TLS means, and how to fix it.

    Args:
        error: What was raised in the handshake, or when the first bytes were read.
        address: Whom we wanted to reach, and how.

    Returns:
        None where the error does not tell; the other side may speak no TLS then.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return _explain_verification(error, address)
    reason = (error.reason or "") if isinstance(error, ssl.SSLError) else ""
    if "PROTOCOL_VERSION" in reason or reason == "UNSUPPORTED_PROTOCOL":
        return "it does not support TLS 1.2 or newer; raise ssl.enabled.protocols of the broker"
    if "ALERT" not in reason:
        return None
    if address.cert_file is None and ("CERTIFICATE" in reason or "HANDSHAKE_FAILURE" in reason):
        return "it requires a client certificate; give one: cert=FILE&key=FILE"
    if "CERTIFICATE" in reason or "UNKNOWN_CA" in reason:
        return f"it refuses the client certificate {address.cert_file}: {_suspicion(address.cert_file)}"
    return f"it refuses the TLS handshake ({reason.lower().replace('_', ' ')})"


def _explain_verification(error: ssl.SSLCertVerificationError, address: KafkaAddress) -> str:
    code = error.verify_code
    if code == _EXPIRED:
        return "its certificate has expired; renew it on the broker (or set this machine's clock)"
    if code == _NOT_YET_VALID:
        return "its certificate is not valid yet; set this machine's clock, or the broker's certificate"
    if code in _UNKNOWN_SIGNER:
        trusted = f"ca={address.ca_file}" if address.ca_file else "this machine's; give another with ca=FILE"
        return f"its certificate is signed by an unknown CA; expected one of {trusted}"
    if code in _WRONG_NAME:
        return (
            "its certificate is for another host name; use a name that it lists, "
            "or add this one to its subjectAltName"
        )
    return f"its certificate is not accepted ({error.verify_message})"


def _suspicion(cert_file: Path | None) -> str:
    """Why a broker may refuse our certificate."""
    from cryptography import x509

    try:
        (first, *_) = x509.load_pem_x509_certificates(Path(cert_file or "").read_bytes())
        expired = first.not_valid_after_utc < datetime.now(UTC)
    except (OSError, ValueError):
        expired = False
    if expired:
        return f"it expired at {first.not_valid_after_utc:%Y-%m-%d %H:%M} UTC; renew it"
    return "its signer must be in the broker's ssl.truststore"


def _check_readable(path: Path, option: str) -> None:
    try:
        path.open("rb").close()
    except OSError as exc:
        raise SinkError(f"{option} {path}: cannot be read ({exc.strerror}); correct {option}=FILE") from None
