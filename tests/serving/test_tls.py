"""TLS with a certificate of one's own."""

import shutil
import ssl
import subprocess

import pytest
from websockets.sync.client import connect

from rt2_jax.client.frames import unpack
from rt2_jax.serving.tls import Certificate


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("no `openssl` command to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    make(folder)
    return folder / "cert.pem", folder / "key.pem"


def make(folder):
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-x509"]
    names = ["-subj", "/CN=robots", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run(["openssl", "req", *curve, *names, *files], check=True, capture_output=True)


def test_clients_connect_over_tls_and_only_to_a_certificate_they_know(serve, certificate):
    cert, key = certificate
    _, url = serve(tls_cert=cert, tls_key=key, token="secret")
    assert url.startswith("wss://")
    headers = {"Authorization": "Bearer secret"}
    known = ssl.create_default_context(cafile=str(cert))
    with connect(url, ssl=known, additional_headers=headers) as socket:
        assert "action_space" in unpack(socket.recv(timeout=5))
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(url, additional_headers=headers)
    with pytest.raises(Exception, match="did not receive a valid HTTP response|reset|EOF"):
        connect(url.replace("wss", "ws"), additional_headers=headers)


def test_files_that_are_no_certificate_are_named(certificate, tmp_path):
    cert, key = certificate
    make(tmp_path)
    with pytest.raises(ValueError, match="--tls-cert .*; expected PEM files"):
        Certificate(cert, tmp_path / "key.pem")  # of another certificate
    with pytest.raises(ValueError, match="No such file"):
        Certificate(tmp_path / "none.pem", key)
    locked = tmp_path / "locked.pem"
    lock = ["openssl", "ec", "-in", str(key), "-out", str(locked), "-aes128", "-passout", "pass:x"]
    subprocess.run(lock, check=True, capture_output=True)
    with pytest.raises(ValueError, match="without a passphrase"):
        Certificate(cert, locked)


def test_a_renewed_certificate_is_served_and_half_a_renewal_is_not(certificate, tmp_path):
    for source in certificate:
        shutil.copy(source, tmp_path)
    served = Certificate(tmp_path / "cert.pem", tmp_path / "key.pem")
    (tmp_path / "cert.pem").write_text("half")
    with pytest.raises(ValueError, match="expected PEM files"):
        served.read()
    make(tmp_path)
    served.read()
