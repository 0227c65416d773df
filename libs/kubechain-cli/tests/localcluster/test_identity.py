"""Telling a process from others that had or will have its pid."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest

from kubechain_cli.localcluster.identity import is_alive, read_start

# Says so once it has its name, which looks like what follows a name in /proc/<pid>/stat.
ODDLY_NAMED = "open('/proc/self/comm', 'w').write('a) Z 1 (b c'); print('named', flush=True); input()"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the mark is a time, of which the next test tells")
def test_a_pid_that_went_to_someone_else_is_not_ours() -> None:
    mine = read_start(os.getpid())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as later:
        theirs = read_start(later.pid)
        assert is_alive(later.pid, theirs)
        assert not is_alive(later.pid, mine)
        assert not is_alive(later.pid, None)
    assert is_alive(os.getpid(), mine)


def test_of_a_version_that_noted_times_a_process_is_known_by_that() -> None:
    created = psutil.Process().create_time()
    assert is_alive(os.getpid(), created)
    assert not is_alive(os.getpid(), created - 100)


def test_what_ended_does_not_live_whether_it_was_reaped_or_not() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    marks = read_start(process.pid), psutil.Process(process.pid).create_time()
    assert all(is_alive(process.pid, mark) for mark in marks)
    process.communicate()
    assert not any(is_alive(process.pid, mark) for mark in marks)
    assert read_start(process.pid) is None
    with subprocess.Popen([sys.executable, "-c", "print()"], stdout=subprocess.PIPE) as unreaped:
        os.waitid(os.P_PID, unreaped.pid, os.WEXITED | os.WNOWAIT)
        assert read_start(unreaped.pid) is None


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux")
def test_a_name_may_hold_spaces_and_parentheses() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ODDLY_NAMED], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        before = read_start(process.pid)
        assert process.stdout is not None
        assert process.stdout.readline() == b"named\n"
        assert read_start(process.pid) == before is not None
        assert is_alive(process.pid, before)
