"""Keys and tokens: who is let in, who is not, and what the refusals say."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from stageway.errors import ConfigError
from stageway.serving import auth
from stageway.serving.auth import Auth, Guard, Key, Tokens
from stageway.serving.scorer import StartError

SCRIPT = "def run(data):\n    return 1\n"
MAKERS: dict[str, Callable[[], Any]] = {
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
    "RS256": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
}


def private_pem(key: Any) -> str:
    pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return str(key.private_bytes(serialization.Encoding.PEM, pkcs8, plain).decode())


def public_pem(key: Any) -> str:
    subject = serialization.PublicFormat.SubjectPublicKeyInfo
    return str(key.public_key().public_bytes(serialization.Encoding.PEM, subject).decode())


def bearer(credential: str) -> dict[str, str]:
    return {"authorization": f"Bearer {credential}"}


def refusal(guard: Guard, credential: str) -> str:
    reply = guard(bearer(credential))
    if reply is None:
        return ""
    assert reply.status == 401
    assert dict(reply.headers)["www-authenticate"].startswith("Bearer")
    assert credential not in reply.body.decode()
    return str(json.loads(reply.body)["message"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "auth.json"


def test_a_file_holds_digests_that_only_its_owner_can_read_and_no_key(path: Path) -> None:
    keys = auth.make(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    assert not [key for key in keys.values() if key in path.read_text()]
    assert Auth.from_json(auth.read(path).to_json()) == auth.read(path)
    guard = Guard(str(path))
    assert [refusal(guard, key) for key in keys.values()] == ["", ""]


def test_the_three_ways_of_being_refused_are_three_sentences(path: Path) -> None:
    key = auth.make(path)["primary"]
    guard = Guard(str(path))
    said = {json.loads(guard(headers).body)["message"] for headers in ({}, {"authorization": f"Basic {key}"})}  # type: ignore[union-attr]
    assert said == {auth.MISSING, auth.MALFORMED}
    for wrong in (key[:-1], key + "a", key.swapcase(), "é" * 20, "\udcff", "x" * 100_000):
        assert refusal(guard, wrong) == auth.WRONG
    assert guard({"authorization": f"bearer  {key} "}) is None


def test_keys_rotate_one_at_a_time(path: Path) -> None:
    old = auth.make(path)
    guard = Guard(str(path))
    fresh = auth.rotate(path, "secondary")
    # A new key is good at once, also for a guard that has looked a moment ago.
    assert refusal(guard, fresh) == ""
    assert refusal(guard, old["primary"]) == ""
    assert refusal(guard, old["secondary"]) == auth.WRONG
    assert auth.rotate(path, "primary", "a-key-of-one's-own-making") == "a-key-of-one's-own-making"
    assert refusal(guard, "a-key-of-one's-own-making") == ""
    with pytest.raises(ConfigError, match="has keys; `stageway keys rotate`"):
        auth.make(path)
    with pytest.raises(ConfigError, match="no key is called 'third'; there are primary and secondary"):
        auth.rotate(path, "third")
    with pytest.raises(ConfigError, match="takes 20 characters or more") as caught:
        auth.rotate(path, "primary", "short-and-secret")
    assert "secret" not in caught.value.message


def test_keys_that_rotate_at_the_same_time_are_all_good(path: Path) -> None:
    auth.make(path)
    for _ in range(10):
        fresh: dict[str, str] = {}
        threads = [
            threading.Thread(
                target=lambda name, fresh: fresh.update({name: auth.rotate(path, name)}), args=(name, fresh)
            )
            for name in auth.NAMES
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [auth.read(path).keys[name].fits(fresh[name]) for name in auth.NAMES] == [True, True]


def test_a_change_keeps_the_link_and_the_mode(path: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    path.symlink_to("real/auth.json")
    auth.make(path)
    real = tmp_path / "real" / "auth.json"
    real.chmod(0o640)
    key = auth.rotate(path, "primary")
    assert path.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert auth.read(real).keys["primary"].fits(key)
    assert [one.name for one in real.parent.iterdir()] == [real.name]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
def test_a_change_keeps_the_owner(path: Path) -> None:
    auth.make(path)
    os.chown(path, 12345, 54321)
    auth.rotate(path, "primary")
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 54321)


@pytest.mark.parametrize("broken", ["", '{"keys": {"primary": {"sal', "[]", "{}", '{"keys": {"primary": 7}}', None])
def test_a_broken_file_leaves_the_last_good_one_in_force(
    path: Path, broken: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    key = auth.make(path)["primary"]
    guard = Guard(str(path))
    if broken is None:
        path.unlink()
    else:
        path.write_text(broken)
    for _ in range(3):
        assert refusal(guard, "another") == auth.WRONG
        assert refusal(guard, key) == ""
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"--auth {path}: ")
    assert line.endswith("; the keys and tokens from before stay valid")
    path.unlink(missing_ok=True)
    fresh = auth.make(path)["primary"]
    assert refusal(guard, fresh) == ""


@pytest.fixture(scope="module", params=list(MAKERS))
def pair(request: pytest.FixtureRequest) -> Any:
    return request.param, MAKERS[request.param]()


def claims(**more: Any) -> dict[str, Any]:
    return {"exp": time.time() + 600, "iss": "ci", "aud": "diabetes", **more}


def test_tokens_are_taken_until_they_expire(path: Path, pair: Any) -> None:
    algorithm, key = pair
    auth.trust(path, public_pem(key), issuer="ci", audience="diabetes")
    guard = Guard(str(path))
    good = jwt.encode(claims(), key, algorithm)
    assert [refusal(guard, good) for _ in range(2)] == ["", ""]
    # Within the leeway, and beyond it.
    assert refusal(guard, jwt.encode(claims(exp=time.time() - 1), key, algorithm)) == ""
    assert refusal(guard, jwt.encode(claims(exp=time.time() - 60), key, algorithm)) == auth.EXPIRED
    for wrong in (claims(iss="me"), claims(aud="iris"), claims(nbf=time.time() + 60), {"iss": "ci", "aud": "diabetes"}):
        assert refusal(guard, jwt.encode(wrong, key, algorithm)) == auth.WRONG
    head, body, signature = good.split(".")
    assert refusal(guard, f"{head}.{body}.{signature[:-4]}AAAA") == auth.WRONG
    assert refusal(guard, f"{head}.{body}.") == auth.WRONG
    stranger = jwt.encode(claims(exp=time.time() - 60), MAKERS[algorithm](), algorithm)
    assert refusal(guard, stranger) == auth.WRONG


def forged(header: dict[str, Any], secret: bytes | None) -> str:
    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    signed = f"{part(json.dumps(header).encode())}.{part(json.dumps(claims()).encode())}"
    return f"{signed}.{part(hmac.digest(secret, signed.encode(), hashlib.sha256)) if secret is not None else ''}"


@pytest.mark.parametrize("name", ["none", "None", "NONE", "HS256", "HS384", "ES384", "PS256"])
def test_a_token_cannot_choose_how_it_is_verified(path: Path, pair: Any, name: str) -> None:
    _, key = pair
    auth.trust(path, public_pem(key), issuer="ci", audience="diabetes")
    guard = Guard(str(path))
    assert refusal(guard, forged({"alg": name, "typ": "JWT"}, None)) == auth.WRONG
    # The public key as the secret of an HMAC.
    assert refusal(guard, forged({"alg": name, "typ": "JWT"}, public_pem(key).encode())) == auth.WRONG


def test_keys_and_tokens_work_side_by_side_and_a_jwk_is_a_public_key_too(path: Path) -> None:
    first, second = MAKERS["ES256"](), MAKERS["EdDSA"]()
    keys = auth.make(path)
    jwk = jwt.algorithms.ECAlgorithm.to_jwk(first.public_key(), as_dict=True)
    auth.write(path, Auth(auth.read(path).keys, Tokens((jwk, public_pem(second)))))
    guard = Guard(str(path))
    until = {"exp": time.time() + 600}
    given = [*keys.values(), jwt.encode(until, first, "ES256"), jwt.encode(until, second, "EdDSA")]
    assert [refusal(guard, one) for one in given] == ["", "", "", ""]
    # Whose key is taken out of the file is not let in any longer, cached or not.
    auth.write(path, Auth(auth.read(path).keys, Tokens((public_pem(second),))))
    assert refusal(guard, "look") == auth.WRONG
    assert [refusal(guard, one) for one in given] == ["", "", auth.WRONG, ""]


def test_the_memory_of_valid_tokens_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "MOST_TOKENS", 5)
    key = MAKERS["EdDSA"]()
    verifier = auth.Verifier(Tokens((public_pem(key),)))
    tokens = [jwt.encode({"exp": time.time() + 600 + n}, key, "EdDSA") for n in range(12)]
    for token in [*tokens, *tokens]:
        assert verifier.why_not(token) == ""
        assert len(verifier._valid) <= 5


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "has neither keys nor tokens; `stageway keys make` writes one"),
        ({"keys": {"third": {}}}, "keys.third: there are primary and secondary"),
        ({"keys": {"primary": {"salt": "00"}}}, "keys.primary: needs salt and digest, in hexadecimal digits"),
        ({"keys": ["secret"]}, "keys: takes an object"),
        ({"tokens": {"issuer": "x"}}, "tokens.public-keys: needs one public key or more"),
        (
            {"tokens": {"public-keys": ["x"], "algorithms": ["HS256"]}},
            "tokens.algorithms: there are RS256, ES256, EdDSA",
        ),
        ({"tokens": {"public-keys": ["secret"]}}, "tokens.public-keys[0]: is neither a public key in PEM nor a JWK"),
        ({"tokens": {"public-keys": [{"kty": "oct", "k": "AA"}]}}, "tokens.public-keys[0]: is secret"),
        ({"tokens": {"public-keys": [private_pem(MAKERS["ES256"]())]}}, "tokens.public-keys[0]: is secret"),
        (
            {"tokens": {"public-keys": [public_pem(ec.generate_private_key(ec.SECP384R1()))]}},
            "tokens.public-keys[0]: is of a kind that is not taken",
        ),
        (
            {"tokens": {"public-keys": [public_pem(MAKERS["ES256"]())], "algorithms": ["EdDSA"]}},
            "tokens.public-keys[0]: is for ES256; tokens.algorithms has EdDSA",
        ),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_in_one_line(path: Path, content: Any, words: str) -> None:
    path.write_text(json.dumps(content))
    with pytest.raises(StartError) as caught:
        Guard(str(path))
    assert caught.value.message.startswith(f"--auth {path}: ") or words.startswith("tokens.public-keys[")
    assert words in caught.value.message
    assert "secret" not in caught.value.message.replace("is secret", "")


def test_a_digest_is_salted() -> None:
    first, second = Key.of("the same key"), Key.of("the same key")
    assert first.digest != second.digest
    assert first.fits("the same key")
    assert second.fits("the same key")


# Over HTTP.


@pytest.fixture(scope="module")
def guarded(start: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("auth") / "auth.json"
    keys = auth.make(path)
    key = MAKERS["ES256"]()
    auth.trust(path, public_pem(key))
    return start(SCRIPT, "--workers", "2", "--auth", str(path), "--access-log").ready(), path, keys, key


def test_scoring_and_metrics_are_guarded_and_the_rest_is_open(guarded: Any) -> None:
    service, _, keys, key = guarded
    for place in ("/", "/livez", "/readyz", "/swagger.json", "/contract.json"):
        assert service.ask("GET", place).status == 200, place
    token = jwt.encode({"exp": time.time() + 60}, key, "ES256")
    for method, place in (("POST", "/score"), ("GET", "/score?x=1"), ("GET", "/metrics")):
        missing = service.ask(method, place, b"")
        assert (missing.status, missing.json["message"]) == (401, auth.MISSING), place
        assert missing.headers["www-authenticate"] == "Bearer"
        wrong = service.ask(method, place, b"", bearer("nobody's"))
        assert (wrong.status, wrong.json["message"]) == (401, auth.WRONG), place
        assert "x-request-id" in wrong.headers
        for credential in (*keys.values(), token):
            assert service.ask(method, place, b"", bearer(credential)).status == 200, place
    expired = jwt.encode({"exp": time.time() - 60}, key, "ES256")
    reply = service.score({}, bearer(expired))
    assert (reply.status, reply.json["message"]) == (401, auth.EXPIRED)
    log = service.log.read_text()
    assert not [secret for secret in (*keys.values(), token, expired, "nobody's") if secret in log]


def test_rotation_under_load_refuses_nobody_who_has_a_valid_key(guarded: Any) -> None:
    service, path, _, _ = guarded
    valid = [auth.rotate(path, "primary")]
    refused: list[Any] = []
    asked, done = [0], threading.Event()

    def ask() -> None:
        with service.client() as client:
            while not done.is_set():
                key = valid[0]
                reply = client.ask("POST", "/score", b"{}", bearer(key))
                asked[0] += 1
                # A key that was replaced twice while its request was on the way may be refused.
                if reply.status != 200:
                    refused.append(reply.body)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    old = ""
    for turn in range(40):
        seen = asked[0]
        # The next key is made in the other place; who has the current one keeps it until then.
        old, valid[0] = valid[0], auth.rotate(path, ("secondary", "primary")[turn % 2])
        while asked[0] < seen + 20:
            time.sleep(0.001)
    done.set()
    for thread in threads:
        thread.join()
    assert refused == []
    # What is not in the file any more is refused, by each worker, within a second of its being told.
    gone = old
    auth.rotate(path, "primary")
    auth.rotate(path, "secondary")
    end = time.monotonic() + 60
    while any(service.score({}, bearer(gone)).status == 200 for _ in range(8)):
        assert time.monotonic() < end
    # A broken file changes nothing, and says so once in each worker.
    kept = auth.rotate(path, "primary")
    assert service.score({}, bearer(kept)).status == 200
    path.write_text('{"keys": ')
    for _ in range(8):
        assert service.score({}, bearer("wrong")).status == 401
    said = [line for line in service.lines if "stay valid" in line]
    assert 1 <= len(said) <= 2


def test_a_service_whose_file_is_missing_does_not_start(start: Any, tmp_path: Path) -> None:
    service = start(SCRIPT, "--auth", str(tmp_path / "nowhere.json"))
    assert service.ended() == 1
    assert service.lines[-1].endswith(f"--auth {tmp_path}/nowhere.json: No such file or directory")
