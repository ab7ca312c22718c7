#!/usr/bin/env python3
"""Puts layers (tar files) together to an image archive as `docker save` writes it; the same input gives the same bytes.

archive.py OUT TAG CONFIG LAYER…

CONFIG is the JSON of the image's `config` (User, Env, Cmd, …). Layers come bottom first.
"""

import hashlib
import io
import json
import os
import platform
import sys
import tarfile

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else slow(file)


def slow(file):
    sha = hashlib.sha256()
    while block := file.read(1 << 20):
        sha.update(block)
    return sha.hexdigest()


def main(out, tag, config, *layers):
    digests = [digest(layer) for layer in layers]
    machine = platform.machine()
    image = json.dumps(
        {
            "architecture": ARCHITECTURES.get(machine, machine),
            "os": "linux",
            "created": "1980-01-01T00:00:00Z",
            "config": json.loads(config),
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{d}" for d in digests]},
            "history": [{"created": "1980-01-01T00:00:00Z", "created_by": "tests/cluster/images.sh"} for _ in layers],
        },
        indent=1,
        sort_keys=True,
    ).encode()
    name = f"{hashlib.sha256(image).hexdigest()}.json"
    manifest = json.dumps([{"Config": name, "RepoTags": [tag], "Layers": [f"{d}.tar" for d in digests]}]).encode()
    with tarfile.open(out, "w", format=tarfile.GNU_FORMAT) as archive:

        def add(member, size, file):
            info = tarfile.TarInfo(member)
            info.size = size
            archive.addfile(info, file)

        for layer, sha in zip(layers, digests):
            with open(layer, "rb") as file:
                add(f"{sha}.tar", os.path.getsize(layer), file)
        add(name, len(image), io.BytesIO(image))
        add("manifest.json", len(manifest), io.BytesIO(manifest))


if __name__ == "__main__":
    main(*sys.argv[1:])
