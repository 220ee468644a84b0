"""What `make` says when it cannot do its work."""


def test_make_without_a_usable_python_says_what_to_install(root, run, tmp_path):
    result = run(root, "make", "test", "PYTHON=", f"VENV={tmp_path / 'venv'}")
    assert result.returncode != 0
    assert "no Python 3.11 or later" in result.stderr
    assert "python3.11-venv" in result.stderr


def test_make_demo_runs_the_demo_and_long_runs_the_long_one(root, run, tmp_path):
    (tmp_path / "installed").touch()
    for words, expected in (((), "rt2 demo"), (("LONG=1",), "rt2 demo --long")):
        result = run(
            root, "make", "--dry-run", "--no-print-directory", "demo", f"VENV={tmp_path}", *words
        )
        assert result.returncode == 0, result.stderr
        assert result.stdout.strip().splitlines()[-1].strip().endswith(expected)
