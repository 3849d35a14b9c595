"""Downloads the official data sets and verifies their checksums: `--data download`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from raremem.benchmarks.data.errors import DataError
from raremem.benchmarks.packages import need

DOWNLOAD = "download"
"""What `--data` is told instead of a folder."""


@dataclass(frozen=True)
class DataSet:
    """A data set: a title, its official address, and the checksum of each file."""

    title: str
    address: str
    files: dict[str, str]


BANKING = "PolyAI-LDN/task-specific-datasets/57ec275d8078af65b7731c2a98be812d844a6d6b/banking_data/"

DATA_SETS = {
    "omniglot": DataSet(
        "Omniglot's two official zips (or their folders, or .npz)",
        "https://github.com/brendenlake/omniglot/raw/master/python/",
        {  # those that torchvision lists
            "images_background.zip": "md5:68d2efa1b9178cc56df9314c21c6e718",
            "images_evaluation.zip": "md5:6b91aef0f799c5bb55b94e3f2daec811",
        },
    ),
    "multi30k": DataSet(
        "Multi30k (train and test_2016_flickr; .en and .de, or .gz)",
        "https://github.com/multi30k/dataset/raw/master/data/task1/raw/",
        {  # taken from the files
            "train.en.gz": "sha256:d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f",
            "train.de.gz": "sha256:726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6",
            "test_2016_flickr.en.gz": "sha256:611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9",
            "test_2016_flickr.de.gz": "sha256:9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8",
        },
    ),
    "intents": DataSet(
        "CLINC150 (data_full.json) and Banking77 (train.csv, test.csv)",
        "https://raw.githubusercontent.com/",
        {  # of commits 828f809 and 57ec275
            "clinc/oos-eval/828f8093932c8fe6ca7936c3d2e52903b1c523de/data/data_full.json": (
                "sha256:36923c3705a59e08fe9c3883d8bc2dd966ef93e22cb78ac41171782a698d56e0"
            ),
            f"{BANKING}train.csv": "sha256:b06e26ac675513959a63135f11b94ea7786ed02da65db93a5650d8838cbc664b",
            f"{BANKING}test.csv": "sha256:d12d6e3bc4c3103966ae786dc435913c0c563dfa328f5a3646d0e62cfeeb474d",
        },
    ),
}


def fetch(name: str) -> Path:
    """Download a data set into the user's cache, unless it is there, and return its folder.

    Raises:
        DataError: a file cannot be fetched, or is not what it should be.
        MissingPackageError: pooch is not installed.
    """
    need("--data download", "pooch")
    import pooch

    wanted = DATA_SETS[name]
    folder = Path(pooch.os_cache("raremem")) / name
    store = pooch.create(path=folder, base_url=wanted.address, registry=wanted.files, retry_if_failed=2)
    try:
        for file in wanted.files:
            store.fetch(file)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{name} could not be fetched from {wanted.address} ({error}); fetch it yourself and name its folder."
        ) from error
    return folder
