"""Weights from the network, once: the hub for timm's, the libraries' own servers for Keras' and torchvision's."""

import hashlib
import os
import pathlib
import socket
import sys
import urllib.error
import urllib.parse
import urllib.request

from mnet_jax.pretrained import wrapped
from mnet_jax.pretrained.readers import sharded
from mnet_jax.pretrained.sources import Source

_CHUNK = 1 << 20
_TIMEOUT = 30  # seconds without a byte
_INDEX = f"model.safetensors{sharded.SUFFIX}"


def cache_dir() -> pathlib.Path:
    """Where downloads are kept: $MNET_CACHE, or mnet_jax in the user's cache. The hub's client has its own, HF_HOME."""
    cache = os.environ.get("MNET_CACHE")
    if cache:
        return pathlib.Path(cache).expanduser()
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mnet_jax"


def fetch(source: Source) -> pathlib.Path:
    """The file of `source`, from the cache or its URL; complete and with the right checksum, or not there at all.

    Raises:
      ValueError: if it can't be had; says what to download, and where to put it.
    """
    path = cache_dir() / source.file
    if path.exists():
        return path
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _download(source.url, part)
        _check(part, source)
        os.replace(part, path)
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise ValueError(f"cannot download {source.name} ({reason}): get {source.url} and put it at {path}") from error
    finally:
        part.unlink(missing_ok=True)
    return path


def _download(url: str, path: pathlib.Path) -> None:
    from tqdm import tqdm

    request = urllib.request.Request(url, headers={"User-Agent": "mnet_jax"})
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer, open(path, "wb") as file:
        size = int(answer.headers.get("Content-Length") or 0)
        with tqdm(
            total=size or None, unit="B", unit_scale=True, desc=path.name.partition(".")[0], file=sys.stderr
        ) as bar:
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    if size and path.stat().st_size != size:
        raise OSError(f"the connection broke off after {path.stat().st_size:,} of {size:,} bytes")


def _check(path: pathlib.Path, source: Source) -> None:
    if source.checksum is None:
        return
    kind, _, digits = source.checksum.partition(":")
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, kind).hexdigest()
    if not found.startswith(digits):
        raise OSError(f"what came is another file: {kind} {found} instead of {digits}")


def fetch_hub(name: str, revision: str | None) -> tuple[pathlib.Path, pathlib.Path]:
    """Weights and config.json of a repository of the hub, of one commit, from its client's cache if they are there.

    The weights are model.safetensors, or the index of several files, of which those come too that are needed.

    Environment variables of the client hold: HF_HOME, HF_HUB_OFFLINE, HF_ENDPOINT, HF_TOKEN.

    Raises:
      ValueError: if they can't be had; says what to download, and where to put it.
    """
    import huggingface_hub
    from huggingface_hub import constants, errors

    def get(file: str, revision: str | None, *, local: bool) -> pathlib.Path:
        return pathlib.Path(huggingface_hub.hf_hub_download(name, file, revision=revision, local_files_only=local))

    def get_weights(revision: str | None, *, local: bool) -> pathlib.Path:
        try:
            return get("model.safetensors", revision, local=local)
        except errors.EntryNotFoundError as error:
            if isinstance(error, errors.LocalEntryNotFoundError) and not local:
                raise  # the hub does not answer: it may have the file
            try:
                index = get(_INDEX, revision, local=local)
            except errors.EntryNotFoundError:
                raise error from None
        shards = sharded.read_index(index)
        for file in sorted({shards[array] for array in wrapped.wanted(shards)}):
            get(file, revision, local=local)
        return index

    try:
        return get_weights(revision, local=True), get("config.json", revision, local=True)
    except errors.LocalEntryNotFoundError:
        pass  # not in the cache: on to the network
    try:
        _knock(constants.ENDPOINT)
        config = get("config.json", revision, local=False)
        commit = config.parent.name  # snapshots/<commit>/config.json: the weights of the same commit
        return get_weights(commit, local=False), config
    except errors.RevisionNotFoundError as error:
        raise ValueError(f"the hub has no revision {revision!r} of {name}") from error
    except errors.GatedRepoError as error:
        raise ValueError(f"{name} is for those who accepted its terms: do so on the hub, then set HF_TOKEN") from error
    except errors.RepositoryNotFoundError as error:
        raise ValueError(f"the hub has no repository {name} (or it is private, then set HF_TOKEN)") from error
    except errors.LocalEntryNotFoundError as error:
        raise ValueError(_by_hand(name, revision, "it is not in the cache, and the hub cannot be reached")) from error
    except errors.EntryNotFoundError as error:
        raise ValueError(f"{name} on the hub has no config.json and model.safetensors of timm's") from error
    except Exception as error:  # of the client's HTTP library, which it has changed twice
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(_by_hand(name, revision, reason)) from error


def _knock(endpoint: str) -> None:
    """Raises OSError where nobody answers: the hub's client would try for half a minute. A proxy may know the way."""
    host = urllib.parse.urlsplit(endpoint)
    if not urllib.request.getproxies():
        socket.create_connection((host.hostname, host.port or (80 if host.scheme == "http" else 443)), _TIMEOUT).close()


def _by_hand(name: str, revision: str | None, reason: str) -> str:
    from huggingface_hub import constants

    base = f"{constants.ENDPOINT}/{name}/resolve/{revision or 'main'}"
    return (
        f"cannot download {name} ({reason}): get {base}/model.safetensors and {base}/config.json, put both into one "
        "directory, and give that directory instead of the name"
    )
