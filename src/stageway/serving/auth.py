"""Who may ask: keys and tokens, from one JSON file that holds nothing with which one could ask.

    {"keys": {"primary": {"salt": HEX, "digest": HEX}, "secondary": ...},
     "tokens": {"public-keys": [PEM or JWK, ...], "issuer": ..., "audience": ..., "algorithms": [...]}}

Both parts may be absent, not both at once. A digest is HMAC-SHA256 of the key under its salt: keys are random and long.
The service reads the file again when it changes; one that cannot be used leaves the last good one in force.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import logging
import os
import secrets
import stat
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Iterator, Mapping, Optional

from stageway.errors import ConfigError, StagewayError
from stageway.serving import replies
from stageway.serving.replies import Reply
from stageway.serving.scorer import StartError
from stageway.serving.tls import signature

NAMES = ("primary", "secondary")
ALGORITHMS = ("RS256", "ES256", "EdDSA")
KEY_BYTES = 32
SHORTEST_KEY = 20
LEEWAY = 10.0
"""Seconds that the clocks of who makes tokens and who reads them may differ."""
MOST_TOKENS = 1024
LONGEST_TOKEN = 8192

MISSING = "this service asks for a key or a token: send the header Authorization: Bearer KEY"
MALFORMED = "the header Authorization is not of the form: Bearer KEY"
WRONG = "the key or token in the header Authorization is not valid"
EXPIRED = "the token in the header Authorization has expired; get a new one"

log = logging.getLogger("stageway.serving")


@dataclass(frozen=True)
class Key:
    """A key's salt and digest."""

    salt: bytes
    digest: bytes

    @classmethod
    def of(cls, key: str) -> "Key":
        salt = secrets.token_bytes(16)
        return cls(salt, _digest(salt, key))

    def fits(self, key: str) -> bool:
        return hmac.compare_digest(self.digest, _digest(self.salt, key))


@dataclass(frozen=True)
class Tokens:
    """Whose tokens are taken: each public key as PEM text or as a JWK."""

    public_keys: "tuple[Any, ...]"
    issuer: str = ""
    audience: str = ""
    algorithms: "tuple[str, ...]" = ALGORITHMS


@dataclass(frozen=True)
class Auth:
    """The content of one file."""

    keys: "Mapping[str, Key]" = field(default_factory=dict)
    tokens: Optional[Tokens] = None

    @classmethod
    def from_json(cls, found: Any) -> "Auth":
        """Raises ``ConfigError``, which names what is wrong and never quotes a value."""
        if not isinstance(found, dict) or not (found.get("keys") or found.get("tokens")):
            raise ConfigError("has neither keys nor tokens; `stageway keys make` writes one")
        keys = {}
        for name, key in _object(found, "keys").items():
            if name not in NAMES:
                raise ConfigError("keys.{}: there are {}".format(name, " and ".join(NAMES)))
            try:
                keys[name] = Key(bytes.fromhex(key["salt"]), bytes.fromhex(key["digest"]))
            except (TypeError, KeyError, ValueError):
                raise ConfigError("keys.{}: needs salt and digest, in hexadecimal digits".format(name)) from None
        return cls(keys, _tokens(_object(found, "tokens")) if found.get("tokens") else None)

    def to_json(self) -> "dict[str, Any]":
        found: "dict[str, Any]" = {}
        if self.keys:
            found["keys"] = {
                name: {"salt": key.salt.hex(), "digest": key.digest.hex()} for name, key in self.keys.items()
            }
        if self.tokens is not None:
            optional = {"issuer": self.tokens.issuer, "audience": self.tokens.audience}
            found["tokens"] = {
                "public-keys": list(self.tokens.public_keys),
                **{name: text for name, text in optional.items() if text},
                "algorithms": list(self.tokens.algorithms),
            }
        return found


def read(path: "str | os.PathLike[str]") -> Auth:
    """Return what the file at *path* says. Raises ``ConfigError``."""
    try:
        return Auth.from_json(json.loads(Path(path).read_bytes()))
    except OSError as error:
        raise ConfigError("{}: {}".format(os.fspath(path), error.strerror)) from error
    except ValueError as error:
        raise ConfigError("{}: is not JSON ({})".format(os.fspath(path), error)) from None
    except ConfigError as error:
        raise ConfigError("{}: {}".format(os.fspath(path), error.message)) from None


def write(path: "str | os.PathLike[str]", auth: Auth) -> None:
    """Put *auth* in the place of the file at *path*, at once. Raises ``ConfigError``.

    A new file is readable by its owner only; one that is there keeps its owner and mode, and a link to it stays one.
    """
    target = Path(os.path.realpath(path))
    try:
        descriptor, name = tempfile.mkstemp(prefix=target.name + ".", dir=target.parent)
    except OSError as error:
        raise ConfigError("{}: {}".format(os.fspath(path), error.strerror)) from error
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(auth.to_json(), file, indent=2)
            file.write("\n")
            file.flush()
            _like(target, file.fileno())
            os.fsync(file.fileno())
        Path(name).replace(target)
    except BaseException as error:
        Path(name).unlink()
        if isinstance(error, OSError):
            raise ConfigError("{}: {}".format(os.fspath(path), error.strerror)) from error
        raise


def _like(target: Path, descriptor: int) -> None:
    """Give an open file the owner and the mode of the one that it is going to replace, if there is one."""
    try:
        old, fresh = target.stat(), os.fstat(descriptor)
    except FileNotFoundError:
        return
    if (old.st_uid, old.st_gid) != (fresh.st_uid, fresh.st_gid):
        # Else a service that runs as somebody else could not read it, and would go on with the old keys.
        os.fchown(descriptor, old.st_uid, old.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(old.st_mode))


@contextlib.contextmanager
def _alone(path: "str | os.PathLike[str]") -> "Iterator[None]":
    """Let nobody else change the file meanwhile: a change is made from what the one before it has written.

    The lock is on the folder, since the file itself is replaced.
    """
    try:
        folder = os.open(Path(os.path.realpath(path)).parent, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError("{}: {}".format(os.fspath(path), error.strerror)) from error
    try:
        # Network file systems may lock no folders; there it is up to whoever changes keys.
        with contextlib.suppress(OSError):
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def make(path: "str | os.PathLike[str]") -> "dict[str, str]":
    """Write a new file with two fresh keys and return them; they are nowhere else. Raises ``ConfigError``."""
    fresh = {name: secrets.token_urlsafe(KEY_BYTES) for name in NAMES}
    with _alone(path):
        auth = read(path) if Path(path).exists() else Auth()
        if auth.keys:
            raise ConfigError("{}: has keys; `stageway keys rotate` makes a new one".format(os.fspath(path)))
        write(path, replace(auth, keys={name: Key.of(key) for name, key in fresh.items()}))
    return fresh


def rotate(path: "str | os.PathLike[str]", name: str, key: str = "") -> str:
    """Put a fresh key, or *key*, in the place of *name*'s and return it. Raises ``ConfigError``."""
    if name not in NAMES:
        raise ConfigError("no key is called {!r}; there are {}".format(name, " and ".join(NAMES)))
    if key and (len(key) < SHORTEST_KEY or not key.isascii() or not key.isprintable() or " " in key):
        raise ConfigError("the key: takes {} characters or more of printable ASCII".format(SHORTEST_KEY))
    key = key or secrets.token_urlsafe(KEY_BYTES)
    with _alone(path):
        auth = read(path)
        write(path, replace(auth, keys={**auth.keys, name: Key.of(key)}))
    return key


def trust(path: "str | os.PathLike[str]", public_key: str, *, issuer: str = "", audience: str = "") -> Auth:
    """Take the tokens that *public_key* (PEM) verifies from now on; the file is made where there is none."""
    with _alone(path):
        auth = read(path) if Path(path).exists() else Auth()
        known = auth.tokens or Tokens(())
        keys = known.public_keys if public_key in known.public_keys else (*known.public_keys, public_key)
        tokens = replace(known, public_keys=keys, issuer=issuer or known.issuer, audience=audience or known.audience)
        Verifier(tokens)
        auth = replace(auth, tokens=tokens)
        write(path, auth)
    return auth


class Guard:
    """Refuses requests without a valid key or token; called on the event loop, with the request's headers."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen = signature(path)
        self._next = time.monotonic() + 1.0
        try:
            self._take(read(path))
        except ConfigError as error:
            raise StartError("--auth {}".format(error.message)) from error

    def __call__(self, headers: Any) -> Optional[Reply]:
        if time.monotonic() >= self._next:
            self._look()
        given = headers.get("authorization")
        if not given:
            return _refused(MISSING, "Bearer")
        scheme, _, credential = given.partition(" ")
        credential = credential.strip()
        if scheme.lower() != "bearer" or not credential:
            return _refused(MALFORMED, 'Bearer error="invalid_request"')
        why = self._why_not(credential)
        if why and self._look():
            why = self._why_not(credential)
        return _refused(why, 'Bearer error="invalid_token"') if why else None

    def _why_not(self, credential: str) -> str:
        # Every key is compared, so that the time says nothing about which one it was.
        fitting = [key.fits(credential) for key in self._keys]
        if True in fitting:
            return ""
        return WRONG if self._verifier is None else self._verifier.why_not(credential)

    def _take(self, auth: Auth) -> None:
        self._verifier = Verifier(auth.tokens) if auth.tokens is not None else None
        self._keys = tuple(auth.keys.values())

    def _look(self) -> bool:
        """Read the file if it has changed; every second, and before anything is refused, so that a new key is good."""
        self._next = time.monotonic() + 1.0
        found = signature(self._path)
        if found == self._seen:
            return False
        self._seen = found
        try:
            self._take(read(self._path))
        except StagewayError as error:
            log.error("--auth %s; the keys and tokens from before stay valid", error.message)
        else:
            log.info("the keys and tokens of %s have changed", self._path)
        return True


class Verifier:
    """Verifies tokens (JWT), and remembers those that were valid until they expire."""

    def __init__(self, tokens: Tokens) -> None:
        try:
            import jwt
            from jwt import algorithms
        except ModuleNotFoundError as error:
            raise ConfigError("tokens: need the package {!r}; add pyjwt[crypto]".format(error.name)) from None
        if not algorithms.has_crypto:
            raise ConfigError("tokens: need the package 'cryptography'; add pyjwt[crypto]")
        self._jwt, self._tokens = jwt, tokens
        self._keys = [_public(key, place, tokens.algorithms) for place, key in enumerate(tokens.public_keys)]
        self._valid: "dict[bytes, float]" = {}

    def why_not(self, token: str) -> str:
        """Return why *token* is not taken, or nothing."""
        if token.count(".") != 2 or len(token) > LONGEST_TOKEN:
            return WRONG
        name = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        until = self._valid.get(name)
        if until is not None and time.time() < until:
            return ""
        why = WRONG
        for key, algorithm in self._keys:
            try:
                claims = self._claims(token, key, algorithm)
            except self._jwt.ExpiredSignatureError:
                # Its signature was right.
                why = EXPIRED
            except (self._jwt.PyJWTError, ValueError, TypeError):
                continue
            else:
                self._remember(name, float(claims["exp"]) + LEEWAY)
                return ""
        return why

    def _claims(self, token: str, key: Any, algorithm: str) -> "dict[str, Any]":
        tokens = self._tokens
        found: "dict[str, Any]" = self._jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            audience=tokens.audience or None,
            issuer=tokens.issuer or None,
            leeway=LEEWAY,
            options={"require": ["exp"], "verify_aud": bool(tokens.audience)},
        )
        return found

    def _remember(self, name: bytes, until: float) -> None:
        if len(self._valid) >= MOST_TOKENS:
            now = time.time()
            self._valid = {one: end for one, end in self._valid.items() if end > now}
            if len(self._valid) >= MOST_TOKENS:
                self._valid.clear()
        self._valid[name] = until


def _public(key: Any, place: int, allowed: "tuple[str, ...]") -> "tuple[Any, str]":
    """Return a public key and the one algorithm that its kind has here."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from jwt import PyJWK

    where = "tokens.public-keys[{}]".format(place)
    private = "d" in key if isinstance(key, dict) else "PRIVATE KEY" in str(key)
    if private or (isinstance(key, dict) and key.get("kty") == "oct"):
        raise ConfigError("{}: is secret; only public keys belong here".format(where))
    try:
        loaded = PyJWK(key).key if isinstance(key, dict) else load_pem_public_key(str(key).encode())
    except Exception as error:
        raise ConfigError("{}: is neither a public key in PEM nor a JWK".format(where)) from error
    if isinstance(loaded, RSAPublicKey) and loaded.key_size >= 2048:
        algorithm = "RS256"
    elif isinstance(loaded, EllipticCurvePublicKey) and isinstance(loaded.curve, SECP256R1):
        algorithm = "ES256"
    elif isinstance(loaded, Ed25519PublicKey):
        algorithm = "EdDSA"
    else:
        raise ConfigError("{}: is of a kind that is not taken; use P-256, Ed25519, or RSA of 2048 bits".format(where))
    if algorithm not in allowed:
        raise ConfigError("{}: is for {}; tokens.algorithms has {}".format(where, algorithm, ", ".join(allowed)))
    return loaded, algorithm


def _tokens(found: "dict[str, Any]") -> Tokens:
    public_keys = found.get("public-keys")
    if not isinstance(public_keys, list) or not public_keys:
        raise ConfigError("tokens.public-keys: needs one public key or more, in PEM or as JWK")
    algorithms = found.get("algorithms", list(ALGORITHMS))
    if not isinstance(algorithms, list) or not algorithms or not set(map(str, algorithms)) <= set(ALGORITHMS):
        raise ConfigError("tokens.algorithms: there are {}".format(", ".join(ALGORITHMS)))
    for name in ("issuer", "audience"):
        if not isinstance(found.get(name, ""), str):
            raise ConfigError("tokens.{}: takes one text".format(name))
    return Tokens(tuple(public_keys), found.get("issuer", ""), found.get("audience", ""), tuple(algorithms))


def _object(found: "dict[str, Any]", name: str) -> "dict[str, Any]":
    inner = found.get(name) or {}
    if not isinstance(inner, dict):
        raise ConfigError("{}: takes an object".format(name))
    return inner


def _digest(salt: bytes, key: str) -> bytes:
    return hmac.digest(salt, key.encode("utf-8", "surrogateescape"), "sha256")


def _refused(sentence: str, challenge: str) -> Reply:
    reply = replies.message(401, sentence)
    reply.headers.append(("www-authenticate", challenge))
    return reply
