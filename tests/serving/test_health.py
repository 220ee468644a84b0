"""Probes are answered while a server starts, serves and ends."""

import urllib.error
import urllib.request

import pytest

from rt2_jax.serving.health import Health, health_port


def get(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_it_is_alive_at_once_and_ready_when_requests_are_answered(serve):
    health = Health()
    with health_port("127.0.0.1", 0, health) as port:
        health.doing = "compiling for batches of 4"
        assert get(port, "/healthz") == (200, "OK\n")
        assert get(port, "/readyz") == (503, "compiling for batches of 4\n")
        server, _ = serve(health=health)
        assert get(port, "/readyz")[0] == 503
        health.doing = ""
        assert get(port, "/readyz") == (200, "OK\n")
        server.policy_app.service.draining = True
        assert get(port, "/readyz") == (503, "ending\n")
        assert get(port, "/healthz") == (200, "OK\n")
        assert get(port, "/")[0] == 404


def test_a_port_that_is_taken_is_named():
    with health_port("127.0.0.1", 0, Health()) as port:
        with pytest.raises(OSError, match=f"127.0.0.1:{port}, for probes"):
            with health_port("127.0.0.1", port, Health()):
                pass
