"""What `make` says when it cannot do its work."""


def test_make_without_a_usable_python_says_what_to_install(root, run, tmp_path):
    result = run(root, "make", "test", "PYTHON=", f"VENV={tmp_path / 'venv'}")
    assert result.returncode != 0
    assert "no Python 3.11 or later" in result.stderr
    assert "python3.11-venv" in result.stderr


def test_make_demo_says_that_it_is_not_there_yet(root, run):
    result = run(root, "make", "demo")
    assert result.returncode != 0
    assert "make demo: not there yet" in result.stderr
