"""Certificate and key of a service: checked before a worker uses them, watched for new ones."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Optional

from stageway.serving.scorer import StartError
from stageway.serving.settings import Settings


def check(settings: Settings) -> None:
    """Say in one line what is wrong with certificate and key, if anything is."""
    certificate, key = settings.tls_certificate, settings.tls_key
    if not certificate:
        return
    for flag, name in (("--tls-certificate", certificate), ("--tls-key", key)):
        try:
            Path(name).read_bytes()
        except OSError as error:
            raise StartError("{} {}: {}".format(flag, name, error.strerror)) from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password=_encrypted)
    except _EncryptedError:
        sentence = "--tls-key {}: the key is encrypted; give one without a passphrase, readable by this user only"
        raise StartError(sentence.format(key)) from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            sentence = "--tls-key {}: the key does not belong to the certificate {}"
            raise StartError(sentence.format(key, certificate)) from None
        sentence = "--tls-certificate {} --tls-key {}: not a certificate and its key in PEM ({})"
        raise StartError(sentence.format(certificate, key, error.reason or "no start line")) from None


class Watch:
    """Says when the files at *paths* have changed, and have then been left alone for one look."""

    def __init__(self, *paths: str) -> None:
        self._paths = [path for path in paths if path]
        self._settled = self._seen = self._look()

    def changed(self) -> bool:
        """Look once; to be called every second or so."""
        found = self._look()
        settled = found == self._seen != self._settled
        self._seen = found
        if settled:
            self._settled = found
        return settled

    def _look(self) -> "list[Optional[tuple[int, int, int]]]":
        return [signature(path) for path in self._paths]


def signature(path: str) -> "Optional[tuple[int, int, int]]":
    """Return what tells one content of a file from the next, without reading it; ``None`` where it is missing."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


class _EncryptedError(Exception):
    pass


def _encrypted() -> str:
    raise _EncryptedError
