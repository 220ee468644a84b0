"""wss:// with certificates of one's own, for both clients."""

import asyncio
import shutil
import ssl
import subprocess
import threading

import pytest
from websockets.sync.server import serve as serve_frames

from rt2_jax.client import AsyncRemotePolicy, RemotePolicy
from rt2_jax.client.frames import pack

from .conftest import Toy


@pytest.fixture
def certificate(tmp_path):
    """A certificate that it signed itself, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on PATH to make a certificate with")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1"
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-out", cert, "-keyout", key]
    subprocess.run([*command.split(), *name, *files], check=True, capture_output=True)
    return cert, key


def test_a_server_is_believed_by_the_certificates_that_ca_names(certificate):
    cert, key = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)

    def handle(connection):
        connection.send(pack({**Toy().metadata, "protocol_version": 1, "schema_hash": "s"}))
        connection.recv()

    with serve_frames(handle, "127.0.0.1", 0, ssl=context) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"wss://127.0.0.1:{server.socket.getsockname()[1]}"
        # On a busy machine this server, websockets' own, has closed a connection in its handshake.
        with RemotePolicy(url, ca=str(cert), patience_s=20) as policy:
            assert policy.metadata["embodiment"] == "toy"

        async def connect():
            async with AsyncRemotePolicy(url, ca=str(cert), patience_s=20) as policy:
                return policy.action_space.name

        assert asyncio.run(connect()) == "toy"
        with pytest.raises(ConnectionError, match="no TLS connection .*`ca` names the file"):
            RemotePolicy(url)
        with pytest.raises(ConnectionError, match="no plain HTTP .* has the address wss://"):
            RemotePolicy(url.replace("wss", "ws"))
        server.shutdown()
    with pytest.raises(ValueError, match="ca: ws://x has no TLS; connect to wss://"):
        RemotePolicy("ws://x", ca=str(cert))
    with pytest.raises(OSError):
        RemotePolicy("wss://x", ca="no_such_file.pem")
