"""An engine on another machine: its certificate is checked before it gets the key or a prompt."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from engine_support import collect, text_of
from scripted_server import said, serving
from test_remote_answers import GO, QUICK, sglang

from ryvion_node.engine.remote.engine import RemoteEngine
from ryvion_node.engine.remote.spec import RemoteSpec


def certificate(folder: Path, host: str) -> tuple[Path, ssl.SSLContext]:
    """A certificate that signs itself: what trusts it, and what serves with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    day = datetime.timedelta(days=1)
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - day, now + day)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    trusted, secret = folder / "certificate.pem", folder / "key.pem"
    trusted.write_bytes(made.public_bytes(Encoding.PEM))
    secret.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    serving_with = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving_with.load_cert_chain(trusted, secret)
    return trusted, serving_with


@pytest.mark.parametrize(("trusts", "host"), [(True, "localhost"), (False, "localhost"), (True, "elsewhere.example")])
async def test_only_the_right_certificate_gets_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusts: bool, host: str
) -> None:
    trusted, tls = certificate(tmp_path, host)
    if trusts:
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    server = sglang(said("fine"))
    async with serving(server, tls), trio.open_nursery() as nursery:
        spec = RemoteSpec("m", f"https://localhost:{server.port}", key_env="KEY")
        engine = RemoteEngine([spec], timing=QUICK, environ={"KEY": "sk-secret"})
        await nursery.start(engine.run)
        await engine.settled()
        if trusts and host == "localhost":
            assert text_of(await collect(engine, GO)) == "fine"
        else:
            assert engine.status()[0].state == "restarting"
            assert "certificate is not valid" in engine.status()[0].reason
            assert server.asked == []
        nursery.cancel_scope.cancel()
