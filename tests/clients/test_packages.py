# SPDX-License-Identifier: BSD-3-Clause
"""Package managers against an index of our own: pip, npm, apt, go, cargo. The files are nginx's; what is installed must be what was packed."""
import base64
import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
import zipfile

from conftest import PYTHON, need, need_modules

OK = "ok.test"
PAYLOAD = os.urandom(1 << 19).hex()


def wheel(name, version):
    """A wheel as PEP 427 has it."""
    info, out, record = f"{name}-{version}.dist-info", io.BytesIO(), []
    files = {f"{name}.py": f"payload = '{PAYLOAD}'\n", f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
             f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: matrix\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
        for path, text in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record.append(f"{path},sha256={digest},{len(text.encode())}\n")
            z.writestr(path, text)
        z.writestr(f"{info}/RECORD", "".join(record) + f"{info}/RECORD,,\n")
    return out.getvalue()


def targz(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as t:
        for name, text in files.items():
            i = tarfile.TarInfo(name)
            i.size = len(text.encode())
            t.addfile(i, io.BytesIO(text.encode()))
    return out.getvalue()


def test_pip_install(client, served, seen_by_nginx):
    """From a PEP 503 index, with the hash that the index names; pip is Debian's and its trust is the environment's."""
    need_modules("pip")
    file = "matrixwheel-1.0-py3-none-any.whl"
    data = wheel("matrixwheel", "1.0")
    served.put("files/" + file, data)
    served.put("simple/matrixwheel/index.html", f'<!DOCTYPE html><a href="../../files/{file}#sha256={hashlib.sha256(data).hexdigest()}">{file}</a>')
    to = os.path.join(client.tmp, "site")
    r = client.run(PYTHON, "-m", "pip", "install", "--disable-pip-version-check", "--no-cache-dir", "--retries", "0", "--index-url",
                   f"https://{OK}{served.path}/simple", "--target", to, "matrixwheel", allow=[OK], env={"PIP_CONFIG_FILE": "/dev/null"})
    assert "Successfully installed matrixwheel-1.0" in r.out, repr(r)
    with open(os.path.join(to, "matrixwheel.py")) as f:
        assert f.read() == f"payload = '{PAYLOAD}'\n"
    index, one = f"{served.path}/simple/matrixwheel/", f"{served.path}/files/{file}"
    assert seen_by_nginx(2) == [f"GET {index} HTTP/1.1 200", f"GET {one} HTTP/1.1 200"]
    r.intercepted(OK, "http/1.1", ("GET", index, 200), ("GET", one, 200))
    r.quiet()


def test_npm_install(client, served, seen_by_nginx):
    """From a registry of our own, with the integrity that the packument names. npm asks for a package with a scope in an escaped path."""
    need("npm")
    data = targz({"package/package.json": json.dumps({"name": "matrix-package", "version": "1.0.0", "main": "index.js"}),
                  "package/index.js": f"module.exports = '{PAYLOAD}'\n"})
    served.put("files/matrix-package-1.0.0.tgz", data)
    tarball = f"{served.path}/files/matrix-package-1.0.0.tgz"
    dist = {"tarball": f"https://{OK}{tarball}", "integrity": "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode(),
            "shasum": hashlib.sha1(data).hexdigest()}
    served.put("registry/matrix-package", json.dumps({"name": "matrix-package", "dist-tags": {"latest": "1.0.0"}, "versions": {
        "1.0.0": {"name": "matrix-package", "version": "1.0.0", "main": "index.js", "dist": dist}}}))
    project = os.path.join(client.tmp, "project")
    os.mkdir(project)
    r = client.run("npm", "install", "--prefix", project, "--no-audit", "--no-fund", "--no-update-notifier", "--fetch-retries=0",
                   f"--registry=https://{OK}{served.path}/registry/", "matrix-package", allow=[OK],
                   env={"npm_config_globalconfig": "/dev/null", "npm_config_cache": os.path.join(client.tmp, "npm-cache")})
    with open(os.path.join(project, "node_modules/matrix-package/index.js")) as f:
        assert f.read() == f"module.exports = '{PAYLOAD}'\n", repr(r)
    index = f"{served.path}/registry/matrix-package"
    assert seen_by_nginx(2) == [f"GET {index} HTTP/1.1 200", f"GET {tarball} HTTP/1.1 200"]
    r.intercepted(OK, "http/1.1" if r.alpn(OK) else None, ("GET", index, 200), ("GET", tarball, 200))
    r.quiet()


def test_apt_update_and_download(client, served, seen_by_nginx):
    """apt's https method is GnuTLS over the system's store and asks for several files in a row; a private state, one package made by hand."""
    need("apt-get", "dpkg-deb")
    packages, debs = b"", {}
    for i in range(5):
        root, deb = os.path.join(client.tmp, f"deb{i}"), os.path.join(client.tmp, f"made{i}.deb")
        os.makedirs(os.path.join(root, "DEBIAN"))
        os.makedirs(os.path.join(root, "opt/matrix"))
        with open(os.path.join(root, "DEBIAN/control"), "w") as f:
            f.write(f"Package: matrix-deb{i}\nVersion: 1.0\nArchitecture: all\nMaintainer: a <a@test>\nDescription: nothing\n")
        with open(os.path.join(root, f"opt/matrix/payload{i}"), "w") as f:
            f.write(f"{i} {PAYLOAD}")
        subprocess.run(["dpkg-deb", "--root-owner-group", "-Zgzip", "-b", root, deb], check=True, capture_output=True)
        with open(deb, "rb") as f:
            data = f.read()
        debs[f"matrix-deb{i}_1.0_all.deb"] = data
        served.put(f"apt/matrix-deb{i}_1.0_all.deb", data)
        control = subprocess.run(["dpkg-deb", "-f", deb], check=True, capture_output=True, text=True).stdout
        packages += f"{control}Filename: ./matrix-deb{i}_1.0_all.deb\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n\n".encode()
    files = {"Packages": packages, "Packages.gz": gzip.compress(packages, mtime=0)}
    for n, d in files.items():
        served.put("apt/" + n, d)
    served.put("apt/Release", "Origin: matrix\nSuite: ./\nArchitectures: all amd64\nDate: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n" +
               "".join(f" {hashlib.sha256(d).hexdigest()} {len(d)} {n}\n" for n, d in files.items()))
    private = os.path.join(client.tmp, "apt")
    for d in ("etc/apt.conf.d", "etc/preferences.d", "etc/sources.list.d", "etc/trusted.gpg.d", "state/lists/partial", "cache/archives/partial"):
        os.makedirs(os.path.join(private, d))
    with open(os.path.join(private, "etc/sources.list"), "w") as f:
        f.write(f"deb [trusted=yes] https://{OK}{served.path}/apt ./\n")
    with open(os.path.join(private, "status"), "w"):
        pass
    conf = os.path.join(private, "conf")
    with open(conf, "w") as f:
        f.write(f'Dir::Etc "{private}/etc"; Dir::Etc::parts "{private}/etc/apt.conf.d"; Dir::State "{private}/state";\n'
                f'Dir::State::status "{private}/status"; Dir::Cache "{private}/cache"; APT::Sandbox::User ""; APT::Architecture "amd64";\n'
                'Acquire::Retries "0"; Acquire::Languages "none"; Debug::NoLocking "true"; Acquire::AllowInsecureRepositories "false";\n')
    all_of_them = " ".join(f"matrix-deb{i}" for i in range(5))
    r = client.run("sh", "-ec", f"cd {client.tmp} && apt-get -q update && apt-get -q download {all_of_them}", allow=[OK], env={"APT_CONFIG": conf})
    for n, d in debs.items():
        with open(os.path.join(client.tmp, n), "rb") as f:
            assert f.read() == d, repr(r)
    # A flat repository is asked for by "./", which a relay has no business to tidy up; unsigned, so InRelease is looked for in vain first.
    paths = {f"{served.path}/apt/./{n}": 200 for n in ("Release", "Packages.gz", *debs)} | {f"{served.path}/apt/./InRelease": 404}
    assert {f"GET {p} HTTP/1.1 {status}" for p, status in paths.items()} <= set(seen_by_nginx(len(paths)))
    r.intercepted(OK, None, *[("GET", p, status) for p, status in paths.items()])
    r.quiet("egress_dns_deny")  # apt asks for SRV records of _https._tcp, which is not a listed name


def test_go_mod_download(client, served, seen_by_nginx):
    """From a module proxy of our own."""
    need("go", package="golang-go")
    module, version, out = "matrix.test/m", "v1.0.0", io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        z.writestr(f"{module}@{version}/go.mod", f"module {module}\n")
        z.writestr(f"{module}@{version}/m.go", f"package m\n\nconst Payload = \"{PAYLOAD}\"\n")
    files = {"list": version + "\n", f"{version}.info": json.dumps({"Version": version, "Time": "2026-01-01T00:00:00Z"}),
             f"{version}.mod": f"module {module}\n", f"{version}.zip": out.getvalue()}
    for n, d in files.items():
        served.put(f"proxy/{module}/@v/{n}", d)
    project = os.path.join(client.tmp, "project")
    os.mkdir(project)
    r = client.run("sh", "-ec", f"cd {project} && go mod init x && go mod download -json {module}@{version}", allow=[OK],
                   env={"GOPROXY": f"https://{OK}{served.path}/proxy", "GOSUMDB": "off", "GOFLAGS": "-modcacherw", "GOTOOLCHAIN": "local",
                        "GO111MODULE": "on", "GOENV": "off", "GOPATH": os.path.join(client.tmp, "gopath"),
                        "GOCACHE": os.path.join(client.tmp, "gocache")})
    with open(os.path.join(client.tmp, "gopath/pkg/mod", f"{module}@{version}", "m.go")) as f:
        assert PAYLOAD in f.read(), repr(r)
    paths = [f"{served.path}/proxy/{module}/@v/{version}.{x}" for x in ("info", "mod", "zip")]
    assert {f"GET {p} HTTP/2.0 200" for p in paths} <= set(seen_by_nginx(3))
    r.intercepted(OK, "h2", *[("GET", p, 200) for p in paths])
    r.quiet()


def test_cargo_fetch(client, world, served, seen_by_nginx, tmp_path):
    """A git index by libgit2 inside cargo, and a crate by libcurl."""
    need("/usr/bin/cargo", "git")
    data = targz({"matrix-crate-1.0.0/Cargo.toml": '[package]\nname = "matrix-crate"\nversion = "1.0.0"\n',
                  "matrix-crate-1.0.0/src/lib.rs": f"// {PAYLOAD}\n"})
    served.put("crates/matrix-crate/1.0.0/download", data)
    index, bare = tmp_path / "index", os.path.join(world.git, tmp_path.name + ".git")
    (index / "ma/tr").mkdir(parents=True)
    (index / "config.json").write_text(json.dumps({"dl": f"https://{OK}{served.path}/crates"}))
    (index / "ma/tr/matrix-crate").write_text(json.dumps({"name": "matrix-crate", "vers": "1.0.0", "deps": [], "features": {}, "yanked": False,
                                                         "cksum": hashlib.sha256(data).hexdigest()}) + "\n")
    subprocess.run(["sh", "-ec", f"""git init -q -b master --bare {bare}; cd {index}; git init -q -b master; git add .
git -c user.name=a -c user.email=a@test commit -q -m index; git push -q {bare} master"""], check=True, capture_output=True)
    project, home = tmp_path / "project", tmp_path / "cargo-home"
    (project / "src").mkdir(parents=True)
    (project / "src/lib.rs").write_text("")
    (project / "Cargo.toml").write_text('[package]\nname = "x"\nversion = "0.1.0"\n[dependencies]\nmatrix-crate = "1"\n')
    home.mkdir()
    (home / "config.toml").write_text(f'net.retry = 0\n[source]\ncrates-io.replace-with = "own"\nown.registry = "https://git.test/{tmp_path.name}.git"\n')
    r = client.run("sh", "-ec", f"cd {project} && /usr/bin/cargo fetch -q", allow=[OK, "git.test"],
                   env={"CARGO_HOME": str(home), "RUSTC": "/usr/bin/rustc"})
    (got,) = home.glob("registry/src/*/matrix-crate-1.0.0/src/lib.rs")
    assert got.read_text() == f"// {PAYLOAD}\n", repr(r)
    path = f"{served.path}/crates/matrix-crate/1.0.0/download"
    assert f"GET {path} HTTP/2.0 200" in seen_by_nginx(1, host=OK), "over HTTP/2"
    r.intercepted(OK, "h2", ("GET", path, 200))
    r.intercepted("git.test", r.alpn("git.test"), ("POST", f"/{tmp_path.name}.git/git-upload-pack", 200))
    r.quiet()
