"""Container images as archives, made without Docker: folders become layers, in the form that `docker load`,
`ctr images import` and `kind load image-archive` all take. The same files give the same bytes.

Used by scripts/images and tests/kube-node/images.
"""

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile

# Where programs are found in every image; the proxy's preStop command is looked for there too.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Root:
    """A folder that becomes one layer; paths inside of it are absolute, as the container sees them."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="weft-layer-")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.folder, ignore_errors=True)

    def place(self, inside):
        """The path on this machine of a path in the layer, whose folder is made."""
        path = os.path.join(self.folder, inside.lstrip("/"))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def folder_at(self, inside, mode=0o755):
        path = self.place(inside + "/.")
        os.makedirs(path, exist_ok=True)
        os.chmod(path, mode)

    def text(self, inside, text):
        with open(self.place(inside), "w", encoding="utf-8") as file:
            file.write(text)

    def link(self, inside, target):
        path = self.place(inside)
        if not os.path.lexists(path):
            os.symlink(target, path)

    def copy(self, source, inside=None):
        """A file, with what a link leads to; `inside` is the same path unless given."""
        path = self.place(inside or source)
        if not os.path.lexists(path):
            shutil.copy2(os.path.realpath(source), path)

    def program(self, source, inside):
        """A program without its debug information."""
        path = self.place(inside)
        subprocess.run(["strip", "-o", path, source], check=True)
        os.chmod(path, 0o755)

    def with_libraries(self, *sources):
        """Files of this machine at the same paths, and every library that they load, in the folder where the loader looks."""
        for source in sources:
            self.copy(source)
        for library in libraries(sources):
            self.copy(library, library if "/ld-linux" in library else usr(library))


def usr(path):
    """Debian's /lib is a link to /usr/lib; layers hold the real place, and /lib as a link."""
    return "/usr" + path if re.match(r"/(lib|lib64|bin|sbin)/", path) else path


def libraries(programs):
    """The libraries that programs or libraries load, all of them."""
    found = set()
    for program in programs:
        told = subprocess.run(["ldd", program], text=True, capture_output=True).stdout
        if missing := re.findall(r"^\s*(\S+) => not found", told, re.M):
            sys.exit(f"{program} needs {', '.join(missing)}, which this machine does not have")
        found.update(re.findall(r"(?:=> |^\s*)(/\S+) \(0x", told, re.M))
    return sorted(found)


def _layer(folder):
    """A folder as a tar whose bytes depend on names, modes and contents alone."""

    def own(entry):
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        entry.mtime = 0
        return entry

    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, folders, files in os.walk(folder):
            folders.sort()
            inside = os.path.relpath(path, folder)
            if inside != ".":
                tar.add(path, inside, recursive=False, filter=own)
            links = [name for name in folders if os.path.islink(os.path.join(path, name))]
            for name in sorted(files + links):
                tar.add(os.path.join(path, name), os.path.normpath(os.path.join(inside, name)), recursive=False, filter=own)
    return data.getvalue()


def _architecture():
    machine = os.uname().machine
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def write(out, names, roots, entrypoint=(), command=(), user="", environment=()):
    """Writes the archive OUT: an image under each of its names, with a layer for each root, lowest first."""
    layers = [_layer(root.folder) for root in roots]
    digests = [hashlib.sha256(layer).hexdigest() for layer in layers]
    config = {
        "architecture": _architecture(),
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {"Entrypoint": list(entrypoint), "Cmd": list(command), "User": user, "Env": [f"PATH={PATH}", *environment], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
    }
    config = json.dumps(config, sort_keys=True).encode()
    config_name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = [{"Config": config_name, "RepoTags": list(names), "Layers": [f"{digest}/layer.tar" for digest in digests]}]
    files = [(config_name, config)]
    files += [(f"{digest}/layer.tar", layer) for digest, layer in zip(digests, layers)]
    files += [("manifest.json", json.dumps(manifest).encode())]
    os.makedirs(os.path.dirname(os.path.abspath(out)), exist_ok=True)
    with tarfile.open(out + ".new", "w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    os.replace(out + ".new", out)
