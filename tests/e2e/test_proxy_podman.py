# SPDX-License-Identifier: BSD-3-Clause
"""The compose file of docs/AGENTS-IN-CONTAINERS.md with a real Podman: a container whose only way out is the proxy.

Podman runs inside the private internet, in a user namespace with one id, where it is root: its own store, no cgroups, and an empty /dev/pts. The
image is busybox, curl and a script, made here; nothing is fetched.
"""
import os
import re
import shutil
import subprocess

import proxylib as px
import pytest
import worldlib as w

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
AGENT = r"""#!/bin/sh
code() { curl -s -m 15 -o /dev/null -w '%{http_code} %{http_connect} %{exitcode}' "$@"; }
echo "routes: $(ip route)"
echo "allowed: $(code http://ok.test/)"
echo "intercepted: $(code https://ok.test/)"
for url in http://other.test/ http://10.0.0.5/ http://169.254.169.254/ http://172.30.0.1:3128/; do
    echo "refused $url: $(code $url)"
done
echo "no tunnel: $(code https://other.test/)"
echo "direct: $(code --noproxy '*' http://OK_TEST/)"
echo "search: $(curl -s -m 15 'http://search/search?q=x')"
echo done
""".replace("OK_TEST", w.WEB["ok.test"])


def compose_file():
    """The file as the page shows it: the first yaml block under Podman."""
    with open(os.path.join(REPO, "docs", "AGENTS-IN-CONTAINERS.md")) as f:
        page = f.read().split("## Podman", 1)[1]
    assert " ".join(NETWORK) in page
    return re.search(r"```yaml\n(.*?)```", page, re.S).group(1)


NETWORK = ["podman", "network", "create", "--internal", "--subnet", "172.30.0.0/24", "--gateway", "172.30.0.1", "agents"]  # as the page says


class Podman:
    """A Podman of its own, and the mount namespace in which it has what it wants of the machine."""

    def __init__(self, folder, state):
        self.folder = folder
        for d in ("run", "net", "home", "image/bin"):
            os.makedirs(os.path.join(folder, d), mode=0o700)
        self.write("containers.conf", f"""
[engine]
lock_type = "file"
cgroup_manager = "cgroupfs"
events_logger = "none"
[containers]
cgroups = "disabled"
[network]
network_backend = "cni"
cni_plugin_dirs = ["/usr/lib/cni", "/usr/libexec/cni", "/opt/cni/bin"]
network_config_dir = "{folder}/net"
""")
        self.write("storage.conf", f"""
[storage]
driver = "vfs"
graphroot = "{folder}/store"
runroot = "{folder}/run/store"
[storage.options.vfs]
ignore_chown_errors = "true"
""")
        self.write("registries.conf", "")
        self.write("policy.json", '{"default": [{"type": "insecureAcceptAnything"}]}')
        self.env = {"PATH": os.environ["PATH"], "HOME": f"{folder}/home", "XDG_RUNTIME_DIR": f"{folder}/run", "XDG_STATE_HOME": state,
                    "CONTAINERS_CONF": f"{folder}/containers.conf", "CONTAINERS_STORAGE_CONF": f"{folder}/storage.conf",
                    "CONTAINERS_REGISTRIES_CONF": f"{folder}/registries.conf"}
        # /var/lib is where CNI keeps its leases; crun takes no part in a machine's mixed cgroups.
        mounts = " && ".join(f"mount -t tmpfs tmpfs {d}" for d in ("/var/lib", "/sys/fs/cgroup", "/run"))
        self.holder = subprocess.Popen(["unshare", "-m", "--kill-child", "sh", "-c", f"{mounts} && echo ready && exec cat"], stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE)
        self.works = self.holder.stdout.readline() == b"ready\n"

    def write(self, name, text):
        with open(os.path.join(self.folder, name), "w") as f:
            f.write(text)

    def run(self, *cmd, timeout=120):
        pid = subprocess.run(["pgrep", "-P", str(self.holder.pid)], capture_output=True, text=True).stdout.split()
        go = ["nsenter", "-m", "-t", pid[0], "--", "sh", "-c", 'ulimit -n 1024 && cd "$0" && exec "$@"', self.folder]
        return subprocess.run(go + list(cmd), env=self.env, capture_output=True, text=True, timeout=timeout)

    def close(self):
        self.run("podman", "rm", "-af", "-t", "1")
        self.run("podman", "network", "prune", "-f")
        self.holder.kill()
        self.holder.wait()


@pytest.fixture
def podman(sm, tmp_path):
    missing = [p for p in ("podman", "podman-compose", "busybox", "crun", "curl", "pgrep") if not shutil.which(p)]
    if missing:
        pytest.skip(f"podman cannot run: {' '.join(missing)} not installed (./dev setup clients)")
    folder = tmp_path / "podman"
    folder.mkdir()
    p = Podman(str(folder), sm.state)
    info = p.run("podman", "info") if p.works else None
    if not info or info.returncode:
        p.holder.kill()
        pytest.skip(f"podman cannot run here: {info.stderr if info else 'no mount namespace'}")
    yield p
    p.close()


@pytest.mark.slow
def test_the_compose_file(sm, podman):
    shutil.copy(shutil.which("busybox"), os.path.join(podman.folder, "image/bin/busybox"))
    for applet in subprocess.run(["busybox", "--list"], capture_output=True, text=True).stdout.split():
        if applet != "busybox":
            os.symlink("busybox", os.path.join(podman.folder, "image/bin", applet))
    for lib in {"/usr/bin/curl", *re.findall(r"(/\S+)", subprocess.run(["ldd", "/usr/bin/curl"], capture_output=True, text=True).stdout)}:
        to = os.path.join(podman.folder, "image/bin/curl" if lib.endswith("/curl") else "image/root" + lib)
        os.makedirs(os.path.dirname(to), exist_ok=True)
        shutil.copy(os.path.realpath(lib), to)
    podman.write("image/bin/agent", AGENT)
    os.chmod(os.path.join(podman.folder, "image/bin/agent"), 0o755)
    podman.write("image/Containerfile", 'FROM scratch\nCOPY bin /bin\nCOPY root /\nCMD ["/bin/sh", "/bin/agent"]\n')
    r = podman.run("podman", "build", "--signature-policy", "policy.json", "--isolation", "chroot", "-t", "localhost/agent", "image")
    if r.returncode:
        pytest.skip(f"podman cannot build an image here: {r.stderr[-400:]}")
    r = podman.run("podman", "run", "--rm", "--tmpfs", "/dev/pts", "--network", "none", "localhost/agent", "true")
    if r.returncode:
        pytest.skip(f"podman cannot run a container here: {r.stderr[-400:]}")
    search = px.Search()
    p = px.start(sm, "--client-net", "172.30.0.0/24", "--egress", "strict", "--egress-allow", "ok.test", "--route", f"search=http://127.0.0.1:{search.port}",
                 name="agents", listen="0.0.0.0:3128")
    podman.write("compose.yaml", compose_file())
    r = podman.run(*NETWORK)
    assert r.returncode == 0, r
    assert podman.run("podman", "run", "--rm", "--tmpfs", "/dev/pts", "--network", "agents", "localhost/agent", "true").returncode == 0
    bridge = podman.run("podman", "network", "inspect", "agents", "--format", "{{.NetworkInterface}}").stdout.strip()
    assert bridge, podman.run("podman", "network", "inspect", "agents")
    subprocess.run(["ip", "address", "add", "172.30.0.1/24", "dev", bridge], check=True)
    r = podman.run("podman-compose", "--podman-run-args=--tmpfs=/dev/pts", "up")
    logs = r.stdout + r.stderr
    search.close()

    def said(what):
        found = re.findall(rf"{re.escape(what)}: (.*)", logs)
        assert found, f"the agent did not get to {what!r}: {logs}"
        return found[0].strip()

    assert "default" not in said("routes") and "172.30.0.0/24" in said("routes")
    assert said("allowed") == "200 000 0"
    assert said("intercepted") == "200 200 0"  # with nothing to trust but the file that is mounted
    for url in ("http://other.test/", "http://10.0.0.5/", "http://169.254.169.254/", "http://172.30.0.1:3128/"):
        assert said(f"refused {url}").startswith("403 "), logs
    assert said("no tunnel").startswith("000 403 "), logs
    assert said("direct") == "000 000 7", logs
    assert said("search") == '{"results": []}'
    assert "done" in logs
    r = p.stop()
    assert r.some("egress_allow", host="ok.test")["src"].startswith("172.30.0.")
    assert r.some("egress_http_request", host="ok.test", port=443)["mitm"]
    r.some("egress_deny", host="other.test", reason="unlisted_name")
    r.some("egress_internal_deny", dst="10.0.0.5")
    r.some("egress_loop_guard", dst="172.30.0.1")
    r.some("egress_allow", host="search", rule="route search")
