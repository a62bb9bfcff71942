"""TLS: what is refused at the start, and a new certificate without a restart and without a lost request."""

from __future__ import annotations

import datetime
import http.client
import ipaddress
import signal
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

SCRIPT = "def run(data):\n    return 1\n"
PATIENCE = 60


def pair(folder: Path, number: int, *, kind: str = "ec", form: str = "PKCS8", passphrase: bytes = b"") -> None:
    """Write a certificate of its own, with the serial *number*, and its key, as a tool for rotation does."""
    key: Any = ec.generate_private_key(ec.SECP256R1()) if kind == "ec" else rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"service {number}")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(number)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encryption: Any = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase)
    written = key.private_bytes(serialization.Encoding.PEM, getattr(serialization.PrivateFormat, form), encryption)
    put(folder / "key.pem", written)
    put(folder / "certificate.pem", certificate.public_bytes(serialization.Encoding.PEM))


def put(path: Path, content: bytes) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.replace(path)


def arguments(folder: Path) -> list[str]:
    files = ["--tls-certificate", str(folder / "certificate.pem"), "--tls-key", str(folder / "key.pem")]
    return ["--port", "0", *files]


def port(service: Any) -> int:
    line = next(line for line in service.lines if " ready on " in line)
    return int(line.partition("https://127.0.0.1:")[2].partition(",")[0])


def connection(service: Any, trusted: list[Path], **limits: Any) -> http.client.HTTPSConnection:
    context = ssl.create_default_context()
    for path in trusted:
        context.load_verify_locations(path)
    for name, value in limits.items():
        setattr(context, name, value)
    return http.client.HTTPSConnection("127.0.0.1", port(service), timeout=PATIENCE, context=context)


def serial(client: http.client.HTTPSConnection) -> int:
    assert isinstance(client.sock, ssl.SSLSocket)
    found = client.sock.getpeercert(binary_form=True)
    assert found is not None
    return x509.load_der_x509_certificate(found).serial_number


def ask(client: http.client.HTTPSConnection, **headers: str) -> int:
    client.request("POST", "/score", b"{}", headers)
    reply = client.getresponse()
    reply.read()
    return reply.status


@pytest.mark.parametrize(("kind", "form"), [("ec", "PKCS8"), ("rsa", "PKCS8"), ("rsa", "TraditionalOpenSSL")])
def test_a_service_speaks_tls_from_1_2_on_and_nothing_else(start: Any, tmp_path: Path, kind: str, form: str) -> None:
    pair(tmp_path, 1, kind=kind, form=form)
    service = start(SCRIPT, *arguments(tmp_path)).ready()
    trusted = [tmp_path / "certificate.pem"]
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        client = connection(service, trusted, maximum_version=version, minimum_version=version)
        assert ask(client) == 200
        client.close()
    with pytest.raises(ssl.SSLError):
        connection(service, []).request("GET", "/")
    plain = http.client.HTTPConnection("127.0.0.1", port(service), timeout=PATIENCE)
    plain.request("GET", "/")
    with pytest.raises((http.client.HTTPException, OSError)):
        plain.getresponse()
    plain.close()


@pytest.mark.slow
@pytest.mark.parametrize("told", [True, False], ids=["by a signal", "by itself"])
def test_a_new_certificate_is_taken_under_load_and_a_bad_one_is_not(
    start: Any, until: Any, tmp_path: Path, told: bool
) -> None:
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        pair(tmp_path / str(number), number)
    pair(tmp_path, 3)
    trusted = [*(tmp_path / str(number) / "certificate.pem" for number in (1, 2)), tmp_path / "third.pem"]
    trusted[2].write_bytes((tmp_path / "certificate.pem").read_bytes())
    service = start(SCRIPT, "--workers", "2", *arguments(tmp_path)).ready()
    errors: list[str] = []
    seen: list[int] = []
    done = threading.Event()

    def load(keep: bool) -> None:
        client = connection(service, trusted)
        while not done.is_set():
            try:
                if client.sock is None:
                    client.connect()
                # Which certificate it is, is known before the reply may close the connection.
                number = serial(client)
                if ask(client, **({} if keep else {"connection": "close"})) != 200:
                    errors.append("status")
                seen.append(number)
            except OSError as error:
                errors.append(f"{keep}: {error!r}")
                client.close()
        client.close()

    threads = [threading.Thread(target=load, args=(keep,)) for keep in (True, True, False, False)]
    for thread in threads:
        thread.start()

    def reload(words: str) -> None:
        before = sum(words in line for line in service.lines)
        if told:
            service.process.send_signal(signal.SIGHUP)
        until(lambda: sum(words in line for line in service.lines) > before)

    try:
        for number in (1, 2):
            for name in ("key.pem", "certificate.pem"):
                put(tmp_path / name, (tmp_path / str(number) / name).read_bytes())
            reload("reloaded, 2 workers")
            until(lambda number=number: seen[-20:] == [number] * 20)
        put(tmp_path / "key.pem", (tmp_path / "1" / "key.pem").read_bytes())
        reload("not reloaded: --tls-key")
        assert "the key does not belong to the certificate" in service.lines[-1]
        put(tmp_path / "certificate.pem", b"half of")
        reload("not reloaded: --tls-certificate")
        before = len(seen)
        until(lambda: len(seen) > before + 20)
        assert set(seen[before:]) == {2}
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert set(seen) == {1, 2, 3}


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda folder: (folder / "key.pem").unlink(), "--tls-key {}/key.pem: No such file or directory"),
        (lambda folder: put(folder / "certificate.pem", b"x"), "--tls-key {}/key.pem: not a certificate and its key"),
        (
            lambda folder: put(folder / "key.pem", (folder / "other" / "key.pem").read_bytes()),
            "--tls-key {}/key.pem: the key does not belong to the certificate {}/certificate.pem",
        ),
        (lambda folder: pair(folder, 2, passphrase=b"secret"), "--tls-key {}/key.pem: the key is encrypted"),
    ],
)
def test_a_pair_that_cannot_serve_is_said_in_one_line(start: Any, tmp_path: Path, harm: Any, words: str) -> None:
    (tmp_path / "other").mkdir()
    pair(tmp_path, 1)
    pair(tmp_path / "other", 2)
    harm(tmp_path)
    service = start(SCRIPT, *arguments(tmp_path))
    assert service.ended() == 1
    (line,) = service.lines
    assert line.startswith("stageway-serving: cannot start: --tls-")
    assert words.replace("{}", str(tmp_path)) in line


def test_certificate_and_key_belong_together(start: Any, tmp_path: Path) -> None:
    service = start(SCRIPT, "--tls-certificate", "certificate.pem")
    assert service.ended() == 2
    assert service.lines[-1].endswith("--tls-certificate and --tls-key belong together; give both")
