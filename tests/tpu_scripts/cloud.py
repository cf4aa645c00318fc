"""A cloud to test the scripts against: their commands end in the gcloud of this folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SCRIPTS = HERE.parents[1] / "tpu_scripts"


class Cloud:
    """Runs a script with the fake gcloud first on PATH; `calls` is what it was asked, `verbs` in short."""

    def __init__(self, folder: Path, exists: bool = True, **answers):
        self.path = folder / "gcloud.json"
        self.path.write_text(json.dumps({"calls": [], "exists": exists, **answers}))
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TPU_")}
        self.environment = kept | {
            "PATH": f"{HERE}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "GCLOUD_STATE": str(self.path), "TMPDIR": str(folder),
            "TPU_NAME": "pod", "TPU_ZONE": "us-central2-b", "TPU_POLL": "0.01",
        }  # fmt: skip

    def run(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        command = ["bash", str(SCRIPTS / script), *arguments]
        options = dict(capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
        return subprocess.run(command, env=self.environment | environment, **options)

    @property
    def calls(self) -> list[list[str]]:
        return json.loads(self.path.read_text())["calls"]

    @property
    def verbs(self) -> list[str]:
        return [call[0] for call in self.calls]
