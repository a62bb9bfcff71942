"""``stageway keys``: the file that says who may ask a service, and what goes with it. Secrets never are arguments."""

from __future__ import annotations

import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from stageway.cli.common import JsonOption, print_json

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LONGEST = 366 * 86400


class Name(StrEnum):
    """A service has two keys, so that one can be replaced while the other is in use."""

    PRIMARY = "primary"
    SECONDARY = "secondary"


FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The service's file, as --auth takes it.")]

keys = typer.Typer(no_args_is_help=True, help="Make and rotate the keys and tokens of a service.")


@keys.command("make", epilog="Example: [bold]stageway keys make auth.json[/bold]")
def _make(file: FileArgument, as_json: JsonOption = False) -> None:
    """Write a file with the digests of two fresh keys, and print the keys: this once, they are nowhere else."""
    from stageway.serving import auth

    made = auth.make(file)
    if as_json:
        print_json({"file": str(file), **made})
        return
    for name, key in made.items():
        typer.echo(f"{name + ':':<10} {key}")


@keys.command(
    "rotate",
    epilog="Example: [bold]stageway keys rotate auth.json --key secondary[/bold]",
)
def _rotate(
    file: FileArgument,
    key: Annotated[Name, typer.Option(help="Which of the two.", show_default=False)],
    key_from_file: Annotated[
        Path | None,
        typer.Option(help="Take the key in this file (- is standard input), not a fresh one.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Replace one of the two keys, and print the fresh one. The other stays valid; running services notice."""
    from stageway.serving import auth

    given = "" if key_from_file is None else _given(key_from_file)
    fresh = auth.rotate(file, key.value, given)
    if as_json:
        print_json({"file": str(file), "key": key.value, **({} if given else {key.value: fresh})})
    elif given:
        typer.echo(f"{file}: the {key.value} key is the one of {key_from_file}")
    else:
        typer.echo(f"{key.value + ':':<10} {fresh}")


def _given(path: Path) -> str:
    from stageway.errors import ConfigError

    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--key-from-file {path}: {getattr(error, 'strerror', None) or 'is not text'}") from error
    if not text.strip():
        raise ConfigError(f"--key-from-file {path}: is empty")
    return text.strip()


@keys.command("pair", epilog="Example: [bold]stageway keys pair ~/ci-tokens[/bold]")
def _pair(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the two files are written.")],
    as_json: JsonOption = False,
) -> None:
    """Make a key pair for tokens (ES256): private.pem stays with who makes tokens, public.pem goes to services."""
    from stageway.tokens import make_pair

    private, public = make_pair(folder)
    if as_json:
        print_json({"private": str(private), "public": str(public)})
    else:
        typer.echo(f"{private} makes tokens; keep it. Services take {public}: stageway keys trust FILE {public}")


@keys.command("trust", epilog="Example: [bold]stageway keys trust auth.json public.pem --audience diabetes[/bold]")
def _trust(
    file: FileArgument,
    public_key: Annotated[Path, typer.Argument(metavar="PUBLIC_KEY", help="Public key of who makes tokens, in PEM.")],
    issuer: Annotated[str, typer.Option(help="Take tokens of this issuer only (iss).", show_default=False)] = "",
    audience: Annotated[str, typer.Option(help="Take tokens for this audience only (aud).", show_default=False)] = "",
    as_json: JsonOption = False,
) -> None:
    """Let a service take the tokens that a private key makes, given the public one."""
    from stageway.errors import ConfigError
    from stageway.serving import auth

    try:
        pem = public_key.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{public_key}: {getattr(error, 'strerror', None) or 'is not text'}") from error
    tokens = auth.trust(file, pem, issuer=issuer, audience=audience).tokens
    count = len(tokens.public_keys) if tokens is not None else 0
    if as_json:
        print_json({"file": str(file), "public_keys": count})
    else:
        typer.echo(f"{file}: takes the tokens of {count} key{'s' if count > 1 else ''}")


@keys.command(
    "token",
    epilog="Example: [bold]stageway keys token auth.json --private-key private.pem --expires 1h --subject ci[/bold]",
)
def _token(
    file: FileArgument,
    private_key: Annotated[Path, typer.Option(help="Who makes tokens has it, in PEM.", show_default=False)],
    expires: Annotated[str, typer.Option(help="How long it is valid, such as 90s, 15m, 1h, 7d.")] = "1h",
    subject: Annotated[str, typer.Option(help="Whom it is for (sub).", show_default=False)] = "",
    as_json: JsonOption = False,
) -> None:
    """Make a token that the service with FILE takes, and print it. It ends by itself; it cannot be taken back."""
    from stageway.tokens import make_token

    token, until = make_token(file, private_key, seconds=_seconds(expires), subject=subject)
    if as_json:
        print_json({"token": token, "expires": until})
    else:
        typer.echo(token)


def _seconds(text: str) -> int:
    from stageway.errors import ConfigError

    found = re.fullmatch(r"(\d{1,9})([smhd])", text.strip())
    seconds = int(found[1]) * UNITS[found[2]] if found else 0
    if not 0 < seconds <= LONGEST:
        raise ConfigError(f"--expires {text!r}: takes a number and s, m, h or d, such as 1h, up to 366d")
    return seconds
