"""One round of a program of ours, for scripts that take turns with it."""
import json
import pathlib
import subprocess
import tempfile


def one_round(program, *options):
    """What it writes with --json."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "found.json"
        subprocess.run([program, *map(str, options), "--rounds", "1", "--json", path], check=True,
                       stdout=subprocess.DEVNULL)
        return json.loads(path.read_text())


def listed(numbers):
    """As an option of several numbers takes them."""
    return ",".join(map(str, numbers))
