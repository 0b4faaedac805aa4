# SPDX-License-Identifier: MIT
"""The users that Weir runs as cannot enter a root's home: a build that lies there is copied to where they can."""
import atexit
import glob
import os
import shutil
import tempfile

PROGRAMS = ("src/cli/weir", "src/supervise/weir-supervise", "src/runner/weir-cgi", "src/app/libweir.so*", "examples/*", "tests/system/apps/*")


def reachable(path):
    while path != "/":
        if not os.stat(path).st_mode & 0o001:
            return False
        path = os.path.dirname(path)
    return True


def staged(build):
    """The build, or a copy of its programs that goes when this process ends."""
    build = os.path.abspath(build)
    if os.geteuid() != 0 or not os.path.isdir(build) or reachable(build):
        return build
    return copied(build)


def copied(build):
    """A copy of its programs, where everybody can read it."""
    folder = tempfile.mkdtemp(prefix="weir-stage-", dir="/tmp")
    atexit.register(shutil.rmtree, folder, True)
    copy = os.path.join(folder, os.path.basename(build))
    for pattern in PROGRAMS:
        for name in glob.glob(os.path.join(build, pattern)):
            to = os.path.join(copy, os.path.relpath(name, build))
            if os.path.isfile(name):
                os.makedirs(os.path.dirname(to), exist_ok=True)
                shutil.copy2(name, to)
    for at, _, _ in os.walk(folder):
        os.chmod(at, 0o755)
    return copy
