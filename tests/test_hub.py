"""A classifier goes to the Hugging Face Hub and back: one file, in two lines, against a server of the three calls it takes."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub")

COMMIT = "a" * 40
PROGRAM = """
import sys
import numpy as np
from huggingface_hub import hf_hub_download, upload_file
from raremem.adapters.sklearn import MemoryClassifier

rows, labels = np.eye(3), ["a", "b", "c"]
MemoryClassifier(unknown=0.1).fit(rows, labels).save(sys.argv[1])
upload_file(path_or_fileobj=sys.argv[1], path_in_repo="intents.safetensors", repo_id="me/intents", token="hf_none")
again = MemoryClassifier.load(hf_hub_download("me/intents", "intents.safetensors", token=False))
assert again.predict(rows).tolist() == labels
print("there and back")
"""


class Hub(BaseHTTPRequestHandler):
    """Takes files by a commit, and gives them."""

    def do_POST(self):
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        if "/preupload/" in self.path:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(sent)["files"]
            ]
            self.answer({"files": files})
        else:
            for line in map(json.loads, sent.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            address = f"http://127.0.0.1:{self.server.server_port}/me/intents/commit/{COMMIT}"
            self.answer({"success": True, "commitOid": COMMIT, "commitUrl": address, "hookOutput": ""})

    def do_GET(self):
        content = self.server.files.get(self.path.rpartition("/")[2])
        self.answer(content, 404 if content is None else 200)

    do_HEAD = do_GET

    def answer(self, content, status=200):
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT, "Content-Length": len(content)}
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *ignored):
        pass


def test_a_round_trip(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files = {}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    there = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "home")}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "c.safetensors")],
        env={**kept, **there, "HF_HUB_DISABLE_TELEMETRY": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    server.shutdown()
    server.server_close()
    assert ran.stdout.strip() == "there and back", ran.stderr
    assert server.files == {"intents.safetensors": Path(tmp_path / "c.safetensors").read_bytes()}
