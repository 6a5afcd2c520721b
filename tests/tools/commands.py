"""What tests of `python -m benchmarks` share."""

import os


def idle(monkeypatch, load=0.1):
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load))


def one_line(capsys, code):
    """What a command that refuses its arguments has said."""
    err = capsys.readouterr().err.splitlines()
    assert code == 2 and len(err) == 1 and err[0].startswith("benchmarks: ")
    return err[0]
