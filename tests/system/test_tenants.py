# SPDX-License-Identifier: MIT
"""Files of users: each runs as himself, and a mistake stops him alone."""
import os
import pwd

import pytest
from weirlib import IS_ROOT, Weir, wait_for

pytestmark = [pytest.mark.nosan, pytest.mark.skipif(not IS_ROOT, reason="needs users")]
MAIN = """
defaults site { listen http://127.0.0.1:PORT }
defaults pool { php; workers 1; php-admin-value open_basedir DIR }
tenants tenants/*.conf
site main { root public }
"""


def test_a_tenant_serves_as_himself_and_his_mistakes_stop_him_alone():
    home = pwd.getpwnam("weir-demo").pw_dir
    os.makedirs(home, exist_ok=True)
    os.chmod(home, 0o755)
    os.makedirs(home + "/www", exist_ok=True)
    os.chown(home + "/www", *pwd.getpwnam("weir-demo")[2:4])
    with open(home + "/www/who.php", "w") as f:
        f.write("<?php echo trim(shell_exec('id -un'));")
    try:
        files = {"tenants/weir-demo.conf": "site t.test { root ~/www; php weir-demo }\npool weir-demo { }\n",
                 "tenants/nobody.conf": "site n.test { root /etc }\n", "public/x": "main"}
        with Weir(MAIN.replace(" open_basedir DIR", f" open_basedir {home}"), files) as w:
            assert w.get("/x", host="main").text == b"main"
            assert w.get("/who.php", host="t.test").text == b"weir-demo"
            assert "does not lie in the home of nobody" in w.log()
            w.write("tenants/weir-demo.conf", "site t.test { root /etc; php weir-demo }\npool weir-demo { }\n")
            assert w.command("reload").returncode == 0
            wait_for(lambda: "the root /etc does not lie in the home of weir-demo" in w.log())
            assert w.get("/who.php", host="t.test").text == b"weir-demo"  # its last good version
            assert w.get("/passwd", host="t.test").status == 404
            os.chown(w.write("tenants/weir-demo.conf", "site t.test { redirect http://x/ }\n"), *pwd.getpwnam("weir-gw")[2:4])
            assert w.command("reload").returncode == 0
            wait_for(lambda: "it belongs to neither root nor weir-demo" in w.log())
            assert w.get("/who.php", host="t.test").text == b"weir-demo"
    finally:
        os.unlink(home + "/www/who.php")
        os.rmdir(home + "/www")
