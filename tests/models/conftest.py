"""Fixtures of the tests of networks from other packages."""

from __future__ import annotations

import socket

import pytest


@pytest.fixture
def offline(monkeypatch):
    """Fails a test that reaches for the internet."""

    def refuse(*_):
        raise AssertionError("nothing may reach for the internet")

    monkeypatch.setattr(socket.socket, "connect", refuse)
