"""The API keeps what its OpenAPI document promises, whatever is sent: schemathesis against a real site."""

import json
import subprocess
import sys
from pathlib import Path

import httpx2

CONFIG = Path(__file__).with_name("schemathesis.toml")


def test_generated_requests_find_no_broken_promise(site, tmp_path):
    address = f"{site.url}/api/v1"
    token = httpx2.post(f"{address}/logins", json={"login": "ada", "password": site.password}).json()["token"]
    made = httpx2.post(
        f"{address}/desktops",
        json={"experiment": "heps-2026-0147", "image": "general", "flavor": "small"},
        headers={"Authorization": f"Bearer {token}"},
    )
    assert made.status_code == 201
    (site.root / "data" / "heps-2026-0147" / "raw").mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        (
            sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run", f"{address}/openapi.json",
            "-H", f"Authorization: Bearer {token}", "--exclude-path", "/events/stream", "--exclude-path", "/logins/current",
            "--phases", "examples,coverage,fuzzing", "--max-examples", "15", "--max-failures", "20",
            "--request-timeout", "10", "--generation-database", "none", "--no-color",
        ),
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "api.unexpected" not in site.log("serve")
    document = json.loads(httpx2.get(f"{address}/openapi.json").text)
    assert len(document["paths"]) > 15
