"""File systems on which SQLite loses data are told by their mounts."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure_storage.network_mounts import NETWORK_TYPES, type_of

LINUX = """\
/dev/vda / ext4 rw,relatime 0 0
proc /proc proc rw 0 0
server:/export /home/me nfs4 rw,vers=4.2 0 0
//nas/share /mnt/with\\040space cifs rw 0 0
tmpfs /home/me/local tmpfs rw 0 0
/dev/vdb /over ext4 rw 0 0
server:/again /over nfs rw 0 0
"""

MACOS = """\
/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)
//me@nas/share on /Volumes/My Share (smbfs, nodev, nosuid, mounted by me)
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib/perdure.db", "ext4"),
        ("/home/me/project/.perdure", "nfs4"),
        ("/home/mean/project", "ext4"),
        ("/home/me/local/x", "tmpfs"),
        ("/mnt/with space/x", "cifs"),
        ("/over/x", "nfs"),
    ],
)
def test_the_deepest_and_last_mount_decides(path: str, kind: str) -> None:
    assert type_of(Path(path), LINUX) == kind


def test_mounts_of_macos_are_read() -> None:
    assert type_of(Path("/Volumes/My Share/x"), MACOS) == "smbfs"
    assert type_of(Path("/Users/me"), MACOS) == "apfs"


def test_a_path_of_no_mount_is_of_no_type() -> None:
    assert type_of(Path("/x"), "") is None


def test_shares_are_refused_and_disks_are_not() -> None:
    assert {"nfs", "nfs4", "cifs", "smb3", "smbfs"} <= NETWORK_TYPES
    assert not {"ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "apfs"} & NETWORK_TYPES
