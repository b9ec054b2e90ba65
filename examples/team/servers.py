"""Servers on this machine, for as long as the example lasts: PostgreSQL, and one that speaks S3.

In earnest they are there already, and all that remains of this file is their two URLs.
"""

from __future__ import annotations

import logging
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote


class Postgres:
    """A PostgreSQL server on a socket in a folder of its own."""

    def __init__(self) -> None:
        self._programs = _programs()
        self._folder = Path(tempfile.mkdtemp(prefix="perdure-team-"))
        self._as = _not_root(self._folder)
        self._call("initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C")
        with (self._folder / "data" / "postgresql.conf").open("a") as settings:
            settings.write(f"listen_addresses = ''\nunix_socket_directories = '{self._folder}'\n")
        self.start()

    @property
    def url(self) -> str:
        """Return where its database is."""
        return f"postgresql://postgres@/postgres?host={quote(str(self._folder))}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._call("pg_ctl", "start", "-w", "-l", str(self._folder / "server.log"))

    def stop(self) -> None:
        """Stop it; connections break."""
        self._call("pg_ctl", "stop", "-w", "-m", "fast")

    def remove(self) -> None:
        """Stop it, and remove all that it has."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _call(self, program: str, *words: str) -> None:
        command = [str(self._programs / program), "-D", str(self._folder / "data"), *words]
        # The server inherits these: a pipe would never end.
        nothing = subprocess.DEVNULL
        subprocess.run(command, check=True, cwd="/", stdin=nothing, stdout=nothing, **self._as)


def _programs() -> Path:
    """Return the folder of the server's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parts[-2]))
    if found:
        return found[-1]
    initdb = shutil.which("initdb")
    if initdb is None:
        raise SystemExit("this example needs PostgreSQL: `apt-get install postgresql`")
    return Path(initdb).resolve().parent


def _not_root(folder: Path) -> dict[str, Any]:
    """Return as whom to run it: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam("postgres")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


class S3:
    """A server that speaks S3, in this process, with one bucket.

    Where it is and how to log in there is said in the environment, as it is in earnest.
    """

    def __init__(self) -> None:
        try:
            import s3fs
            from moto.server import ThreadedMotoServer
        except ImportError as error:
            needed = "pip install 'perdure[postgres,s3]' 'moto[server]'"
            raise SystemExit(f"this example needs more ({error}): {needed}") from error

        logging.getLogger("werkzeug").setLevel(logging.WARNING)  # else it tells of each request
        self._server = ThreadedMotoServer(port=0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        os.environ |= {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "none",
            "AWS_SECRET_ACCESS_KEY": "none",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        s3fs.S3FileSystem().call_s3("create_bucket", Bucket="team")
        self.url = "s3://team/values"

    def remove(self) -> None:
        """End it, and with it all that it has."""
        self._server.stop()
