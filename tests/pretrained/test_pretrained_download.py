"""Downloads, from servers on this machine that speak HTTP and the hub's protocol; the real client talks to them."""

import dataclasses
import hashlib
import http.server
import json
import os
import pathlib
import subprocess
import sys
import threading

import pytest
import safetensors.numpy

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import files

from mnet_jax.pretrained import download, sources
from mnet_jax.pretrained.layouts import TIMM

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "somebody/mobilenet-of-mine"
SHARDED = "somebody/in-several-files"  # of which one is of no use


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """What the hub holds: file name -> bytes."""
    folder = tmp_path_factory.mktemp("hub")
    arrays = files.library_arrays(TIMM, "v4_conv_small", 0.35, num_classes=3)
    config = {"architecture": "mobilenetv4_conv_small_035", "num_classes": 3, "label_names": ["ant", "bee", "cat"]}
    files.save_safetensors(folder / "model.safetensors", arrays, **config)
    halves, shards = (sorted(arrays)[::2], sorted(arrays)[1::2]), {"lm_head.weight": "model-00003-of-00003.safetensors"}
    for number, names in enumerate(halves, 1):
        file = f"model-0000{number}-of-00003.safetensors"
        shards |= {f"vision_tower.{name}": file for name in names}
        part = {f"vision_tower.{name}": arrays[name] for name in names}
        safetensors.numpy.save_file(part, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture(scope="module")
def hub(served):
    """Its address, and the requests that it got. Large files are elsewhere, behind a redirect, as the hub has them."""
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self, *, body: bool):
            requests.append(f"{self.command} {self.path}")
            parts = self.path.strip("/").split("/")
            name = parts[-1]
            content = served.get(name)
            if parts[0] == "storage" and content is not None:
                status, headers = 200, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
            elif "/".join(parts[:2]) not in (REPOSITORY, SHARDED):
                status, content, headers = 404, b"", {"X-Error-Code": "RepoNotFound"}
            elif parts[2:4] not in (["resolve", "main"], ["resolve", COMMIT]):
                status, content, headers = 404, b"", {"X-Error-Code": "RevisionNotFound"}
            elif content is None or (name == "model.safetensors" and "/".join(parts[:2]) == SHARDED):
                status, content, headers = 404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}
            else:
                headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
                status = 200
                if name.endswith(".safetensors"):
                    status = 302
                    headers |= {
                        "Location": f"http://localhost:{self.server.server_port}/storage/{name}",
                        "X-Linked-Etag": headers["ETag"],
                        "X-Linked-Size": str(len(content)),
                    }
                    content = b""
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content)

        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", requests
        server.shutdown()


CODE = """
import json, sys
from mnet_jax import load_pretrained
told = []
for source in sys.argv[1:]:
    try:
        trained = load_pretrained(source)
        told.append([trained.config.model.name, *trained.class_names, trained.path])
    except ValueError as error:
        told.append(str(error))
print(json.dumps(told))
"""


def load(home, *names, **environment):
    """Loads in a process of its own: the client reads its environment when it is imported."""
    clean = {
        key: value for key, value in os.environ.items() if not key.startswith("HF_") and "proxy" not in key.lower()
    }
    clean |= {"HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", **environment}
    out = subprocess.run([sys.executable, "-c", CODE, *names], env=clean, capture_output=True, text=True, check=True)
    return json.loads(out.stdout.splitlines()[-1])


def test_the_hub_then_its_cache(hub, tmp_path):
    address, requests = hub
    told = load(tmp_path, REPOSITORY, f"{REPOSITORY}@main", f"{REPOSITORY}@none", "somebody/else", HF_ENDPOINT=address)
    assert told[0] == ["v4_conv_small", "ant", "bee", "cat", REPOSITORY]
    assert told[1][0] == "v4_conv_small"
    assert told[2] == f"the hub has no revision 'none' of {REPOSITORY}"
    assert "the hub has no repository somebody/else" in told[3]
    assert any(request.startswith("GET /storage/model.safetensors") for request in requests)
    count = len(requests)
    assert load(tmp_path, REPOSITORY, HF_ENDPOINT=address, HF_HUB_OFFLINE="1") == [told[0]]
    assert len(requests) == count


def test_of_several_files_those_come_that_are_needed(hub, tmp_path):
    address, requests = hub
    requests.clear()
    told = load(tmp_path, SHARDED, HF_ENDPOINT=address)
    assert told == [["v4_conv_small", "ant", "bee", "cat", SHARDED]]
    fetched = {request.rpartition("/")[2] for request in requests if request.startswith("GET /storage")}
    assert fetched == {"model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors"}
    count = len(requests)
    assert load(tmp_path, SHARDED, HF_ENDPOINT=address, HF_HUB_OFFLINE="1") == told
    assert len(requests) == count


def test_without_network_it_says_what_to_download(tmp_path):
    (told,) = load(tmp_path, "timm/mobilenetv2_100.ra_in1k", HF_ENDPOINT="http://127.0.0.1:9")
    assert "http://127.0.0.1:9/timm/mobilenetv2_100.ra_in1k/resolve/main/model.safetensors" in told
    assert "put both into one directory" in told
    assert "\n" not in told


# --- Keras' and torchvision's servers ---


@pytest.fixture
def entry(served, hub, tmp_path, monkeypatch):
    monkeypatch.setenv("MNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("http_proxy", raising=False)
    digest = hashlib.sha256(served["config.json"]).hexdigest()
    source = sources.CATALOGUE["torchvision/mobilenet_v2.IMAGENET1K_V2"]
    return dataclasses.replace(source, url=f"{hub[0]}/storage/config.json", checksum=f"sha256:{digest[:8]}")


def test_a_file_is_downloaded_once_and_checked(entry, served, hub):
    path = download.fetch(entry)
    assert path.read_bytes() == served["config.json"]
    count = len(hub[1])
    assert download.fetch(entry) == path
    assert len(hub[1]) == count


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"checksum": "sha256:00000000"}, "another file: sha256"),
        ({"url": "http://127.0.0.1:9/m.pth"}, "get http://127.0.0.1:9/m.pth and put it at"),
    ],
)
def test_what_is_not_whole_leaves_nothing_behind(entry, change, message):
    with pytest.raises(ValueError, match=message):
        download.fetch(dataclasses.replace(entry, **change))
    assert list(download.cache_dir().iterdir()) == []
