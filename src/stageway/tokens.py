"""Tokens for services: the pair of keys behind them, and tokens. Services only verify them, see ``serving.auth``."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from stageway.errors import ConfigError
from stageway.serving import auth


def make_pair(folder: Path) -> tuple[Path, Path]:
    """Write ``private.pem`` (its owner's only) and ``public.pem`` into *folder*; neither may be there."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    places = folder / "private.pem", folder / "public.pem"
    for place in places:
        if place.exists():
            raise ConfigError(f"{place}: is there already; name another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for place, content, mode in zip(places, (private, public), (0o600, 0o644), strict=True):
            with os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(content)
    except OSError as error:
        raise ConfigError(f"{folder}: {error.strerror}") from error
    return places


def make_token(file: Path, private_key: Path, *, seconds: int, subject: str = "") -> tuple[str, int]:
    """Return a token that the service with *file* takes, and when it expires (seconds since 1970)."""
    import jwt
    from cryptography.hazmat.primitives import serialization

    tokens = auth.read(file).tokens
    if tokens is None:
        raise ConfigError(f"{file}: takes no tokens; `stageway keys trust {file} PUBLIC_KEY` lets it")
    try:
        key: Any = serialization.load_pem_private_key(private_key.read_bytes(), None)
    except OSError as error:
        raise ConfigError(f"--private-key {private_key}: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise ConfigError(f"--private-key {private_key}: is not a private key in PEM without a passphrase") from error
    now = int(time.time())
    claims = {"iat": now, "exp": now + seconds, "sub": subject, "iss": tokens.issuer, "aud": tokens.audience}
    for algorithm in tokens.algorithms:
        try:
            token = jwt.encode({name: value for name, value in claims.items() if value}, key, algorithm)
        except (jwt.InvalidKeyError, TypeError, ValueError, AttributeError):
            continue  # an algorithm for another kind of key
        if not auth.Verifier(tokens).why_not(token):
            return token, now + seconds
    raise ConfigError(f"--private-key {private_key}: {file} has no public key that belongs to it")
