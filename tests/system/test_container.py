# SPDX-License-Identifier: MIT
"""As the first process of a container: signals, orphans of strangers, exit codes, and what such a place may lack."""
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile

import pytest
from test_systemd import CONFIG
from weirlib import IS_ROOT, SLOW, SUPERVISE, USER, WEIR, Weir, alive, children, descendants, wait_for

pytestmark = [pytest.mark.nosan, pytest.mark.skipif(subprocess.run(["unshare", "--fork", "--pid", "--mount-proc", "true"], capture_output=True).returncode != 0,
                                reason="namespaces cannot be made here")]
CONTAINER = ["unshare", "--fork", "--pid", "--mount", "--kill-child", "sh", "-c", 'mount -t proc none /proc; mount -t tmpfs none /run; exec "$@"', "sh"]
needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root can make this place")


class Container(Weir):
    """Its process is unshare's; the first of the container is its child."""

    def __init__(self, config=CONFIG, wrap=None, **kw):
        super().__init__(config, wrap=wrap or CONTAINER, **kw)

    @property
    def first(self):
        return children(self.process.pid)[0]

    def inside(self, *args, **kw):
        """A program that someone starts in the container from outside, as `docker exec` does."""
        return subprocess.run(["nsenter", "--target", str(self.first), "--pid", "--mount", *args], timeout=30, **kw)

    def end(self, number=signal.SIGTERM):
        """As a container is stopped: the exit status."""
        below = descendants(self.process.pid)
        with contextlib.suppress(IndexError):
            os.kill(self.first, number)
        status = self.process.wait(20 * SLOW)
        assert not [p for p in below if alive(p)]
        return status


def state_of(pid):
    with open(f"/proc/{pid}/stat") as f:
        return f.read().rsplit(")", 1)[1].split()[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_it_serves_and_ends_in_order(number):
    with Container() as w:
        assert w.get("/app/hello").status == 200
        with open(f"/proc/{w.first}/status") as f:
            assert [line.split()[-1] for line in f if line.startswith("NSpid")] == ["1"]
        assert w.end(number) == 0
        assert "ready. Ctrl-C" in w.log()


def test_a_hangup_reads_the_configuration_again():
    with Container() as w:
        os.kill(w.first, signal.SIGHUP)
        wait_for(lambda: "the configuration was read again" in w.log())
        assert w.end() == 0


def test_one_interrupt_of_the_terminal_is_one():
    with Container() as w:  # the root part is in a group of its own: a terminal reaches it by the first process alone
        root_part = children(w.first)[0]
        assert os.getpgid(root_part) == root_part != os.getpgid(w.first)
        assert w.end(signal.SIGINT) == 0


@needs_root
def test_strangers_of_the_container_are_reaped_and_not_killed():
    with Container() as w:
        w.inside("sh", "-c", "setsid sleep 1000 & echo")
        first = w.first
        stranger = wait_for(lambda: [p for p in children(first) if open(f"/proc/{p}/cmdline").read().startswith("sleep")])[0]
        app = w.status() and [p for p in descendants(first) if open(f"/proc/{p}/comm").read().strip() == "demo"][0]
        os.kill(app, signal.SIGKILL)  # the root part looks for orphans of its own
        wait_for(lambda: len(w.pids("demo")) == 2 and not alive(app))
        assert alive(stranger)
        os.kill(stranger, signal.SIGKILL)
        wait_for(lambda: not os.path.exists(f"/proc/{stranger}"))  # no zombie
        assert w.end() == 0


@needs_root
def test_orphans_of_a_killed_keeper_are_killed():
    with Container() as w:
        apps = [p for p in descendants(w.first) if open(f"/proc/{p}/comm").read().strip() == "demo"]
        keepers = [p for p in descendants(w.first) if open(f"/proc/{p}/comm").read().strip() == "weir-keeper"]
        os.kill(keepers[0], signal.SIGKILL)
        wait_for(lambda: sum(alive(p) for p in apps) == 1 and len(w.pids("demo")) == 2)
        assert w.end() == 0


def test_the_end_of_the_root_part_is_the_containers():
    with Container() as w:
        below = descendants(w.process.pid)
        os.kill(children(w.first)[0], signal.SIGKILL)
        assert w.process.wait(20) == 128 + signal.SIGKILL
        wait_for(lambda: not [p for p in below if alive(p)])
        with contextlib.suppress(FileNotFoundError):
            os.unlink(w.socket)  # control may have had no time for it


def test_a_configuration_with_mistakes_is_exit_status_1():
    w = Weir(CONFIG + "nonsense\n", wrap=CONTAINER, wait=False)
    assert w.process.wait(20 * SLOW) == 1
    assert "nonsense" in w.stop()


def test_supervise_alone_is_a_first_process_too():
    with Container(wrap=CONTAINER + ["sh", "-c", 'w=$1; shift 2; exec "$w" supervise "$@"', "sh"]) as w:
        assert len(w.pids("demo")) == 2 and w.status()["listen"] == []
        assert w.end() == 0


def run(setup, *args):
    """Runs weir in namespaces of its own, behind these commands: what it says, and its exit status."""
    command = [*CONTAINER, "sh", "-c", setup + '; exec "$@"', "sh", *args]
    r = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return r.stdout + r.stderr, r.returncode


@pytest.fixture
def site():
    folder = tempfile.mkdtemp(prefix="weir-test-", dir="/tmp")
    os.chmod(folder, 0o755)
    yield folder
    shutil.rmtree(folder)


@needs_root
def test_a_control_that_cannot_be_started_ends_it(site):
    os.chmod(site, 0o700)  # its user cannot come to the program
    for program in (WEIR, SUPERVISE):
        shutil.copy(program, site)
    said, status = run(":", os.path.join(site, "weir"), "serve", site)
    assert status == 1 and "cannot start weir: Permission denied" in said and "control cannot start" in said


@needs_root
def test_a_place_without_a_writable_run_is_told(site):
    said, status = run("mount -o remount,ro /run", WEIR, "serve", site)
    assert status == 1 and "/run/weir" in said and "Read-only file system" in said and "mount a tmpfs on /run" in said


@needs_root
@pytest.mark.parametrize("setup", ["mount -t tmpfs none /proc", "umount /proc"])  # none; the one outside
def test_a_place_without_its_proc_is_told(site, setup):
    said, status = run(setup, WEIR, "serve", site)
    assert status == 1 and "/proc has to be mounted" in said


@needs_root
def test_two_places_that_share_a_folder_leave_each_other_alone():
    shared = ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child", "setpriv", "--reuid", "weir-demo", "--regid", "weir-demo", "--clear-groups"]
    with Container(CONFIG.replace(USER, ""), wrap=shared) as one, Container(CONFIG.replace(USER, ""), wrap=shared) as two:
        assert one.get("/app/hello").status == two.get("/app/hello").status == 200
        assert one.command("restart", "demo").returncode == 0
        assert two.end() == 0
        assert one.get("/app/hello").status == 200
        assert one.end() == 0


@needs_root
@pytest.mark.parametrize("capability", ["kill", "setuid", "chown"])
def test_a_root_without_its_rights_is_told_which(site, capability):
    said, status = run(":", "setpriv", f"--bounding-set=-{capability}", "--inh-caps=-all", WEIR, "serve", site)
    assert status == 1 and capability.upper() in said and "capabilities" in said


def test_a_user_namespace_of_one_user_is_told(site):
    if subprocess.run(["unshare", "--user", "--map-root-user", "true"], capture_output=True).returncode:
        pytest.skip("user namespaces cannot be made here")
    r = subprocess.run(["unshare", "--user", "--map-root-user", "--fork", "--pid", "--mount-proc", "--kill-child", WEIR, "serve", site], capture_output=True, text=True, timeout=60)
    assert r.returncode == 1 and "cannot become the user weir" in r.stderr and "map that id" in r.stderr


class WithLog(Container):
    def configure(self, config):
        super().configure(config)
        with open(self.config) as f:
            text = f.read()
        with open(self.config, "w") as f:
            f.write(text.replace("log off; ", "", 1))


@needs_root
def test_a_read_only_root_and_a_user_without_rights():
    """All that it needs is a /tmp, and its logs are its output."""
    setup = 'mount --bind /tmp /tmp && mount -o remount,ro,bind / && exec setpriv --reuid weir-demo --regid weir-demo --clear-groups "$@"'
    with WithLog(CONFIG.replace(USER, ""), wrap=[*CONTAINER, "sh", "-c", setup, "sh"]) as w:
        assert w.get("/app/hello").status == 200
        wait_for(lambda: "GET /app/hello" in w.log())
        assert w.end() == 0
