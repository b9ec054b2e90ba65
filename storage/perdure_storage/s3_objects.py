"""Objects in S3 and what speaks its protocol: created by one request, or by parts side by side."""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from perdure_storage.hashing import pieces
from perdure_storage.objects import IN_FLIGHT, UPLOADS, Found, FsspecObjects, Point
from perdure_storage.records import Buffer, Leftover
from perdure_storage.roots import RemoteRoot
from perdure_storage.services import code_of

_MOST_PARTS = 10_000
PAGE = 1000
"""Names of one answer to a listing, which is the most that S3 gives."""
_MIB = 1 << 20
_LOST_A_RACE = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict", "409"})
_KNOWS_NO_CONDITIONS = frozenset({"NotImplemented", "501"})
_NOTHING_THERE = frozenset({"InvalidRange", "416"})


class S3Objects(FsspecObjects):
    """Objects by S3's own requests, sent through s3fs, which knows endpoint and credentials."""

    def __init__(self, root: RemoteRoot) -> None:
        super().__init__(root)
        self._bucket, self._prefix, _ = root.fs.split_path(f"{root.folder}/")
        self._has_conditions = True

    @property
    def refuses_what_is_there(self) -> bool:  # type: ignore[override]
        """Say whether the server has shown that it knows no conditional requests."""
        return self._has_conditions

    def look(self, path: str) -> Found | None:
        """Return what is there now: no listing that another thread may have kept is asked."""
        try:
            head = self._call("head_object", Key=self._key(path))
        except FileNotFoundError:
            return None
        return Found(size_bytes=head["ContentLength"], changed_at=head["LastModified"].timestamp())

    # --- writing ----------------------------------------------------------------------------
    def create(
        self,
        path: str,
        buffers: Sequence[Buffer],
        size_bytes: int,
        point: Point,
        *,
        replace: bool = False,
    ) -> None:
        """Create an object under its own name: it appears when all its bytes are there."""
        write = self._put if size_bytes <= self.part_bytes else self._put_parts
        try:
            write(self._key(path), buffers, size_bytes, point, not replace)
        except OSError as error:
            if code_of(error) in _LOST_A_RACE:
                raise FileExistsError(path) from error
            if code_of(error) not in _KNOWS_NO_CONDITIONS or not self._has_conditions:
                raise
            self._has_conditions = False
            write(self._key(path), buffers, size_bytes, point, False)

    def _condition(self, only_if_new: bool) -> dict[str, str]:
        return {"IfNoneMatch": "*"} if only_if_new and self._has_conditions else {}

    def _put(
        self, key: str, buffers: Sequence[Buffer], size_bytes: int, point: Point, only_if_new: bool
    ) -> None:
        point("blob.opened")
        body = b"".join(pieces(buffers))
        point("blob.first-byte")
        point("blob.before-close")
        self._call("put_object", Key=key, Body=body, **self._condition(only_if_new))
        point("blob.after-rename")

    def _put_parts(
        self, key: str, buffers: Sequence[Buffer], size_bytes: int, point: Point, only_if_new: bool
    ) -> None:
        upload = self._call("create_multipart_upload", Key=key)["UploadId"]
        try:
            point("blob.opened")
            bodies = in_parts(buffers, part_bytes_of(size_bytes, self.part_bytes))
            parts = self._send_parts(key, upload, bodies, point)
            point("blob.before-close")
            self._call(
                "complete_multipart_upload",
                Key=key,
                UploadId=upload,
                MultipartUpload={"Parts": parts},
                **self._condition(only_if_new),
            )
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is the one to tell; gc sweeps
                self._call("abort_multipart_upload", Key=key, UploadId=upload)
            raise
        point("blob.after-rename")

    def _send_parts(
        self, key: str, upload: str, bodies: Iterator[bytes], point: Point
    ) -> list[dict[str, Any]]:
        """Send parts side by side, no more than are in flight; return what names them."""
        sent: deque[Any] = deque()
        etags: list[str] = []
        try:
            for number, body in enumerate(bodies, 1):
                if len(sent) == IN_FLIGHT:
                    etags.append(sent.popleft().result()["ETag"])
                sent.append(
                    self._ask(
                        self._fs._call_s3(
                            "upload_part",
                            Bucket=self._bucket,
                            Key=key,
                            UploadId=upload,
                            PartNumber=number,
                            Body=body,
                        )
                    )
                )
                point("blob.mid-write" if number > 1 else "blob.first-byte")
            while sent:
                etags.append(sent.popleft().result()["ETag"])
        finally:
            for request in sent:
                request.cancel()
        return [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]

    # --- reading ----------------------------------------------------------------------------
    async def _part(self, path: str, start: int, end: int) -> bytes:
        try:
            return await super()._part(path, start, end)
        except OSError as error:
            if code_of(error) in _NOTHING_THERE:  # the object ends before
                return b""
            raise

    # --- upkeep -----------------------------------------------------------------------------
    def renew(self, path: str) -> None:
        """Copy an object onto itself, which takes one request and no bytes through this host."""
        self._fs.cp_file(path, path, MetadataDirective="REPLACE")

    def move(self, path: str, to: str) -> None:
        """Give an object another name: a copy, then a removal."""
        self._fs.cp_file(path, to)
        self._fs.rm_file(path)

    def listed(self, folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield every object under a folder, page by page: no more than one is held."""
        after: dict[str, str] = {}
        while True:
            page = self._call(
                "list_objects_v2", Prefix=f"{self._key(folder)}/", MaxKeys=PAGE, **after
            )
            for each in page.get("Contents", ()):
                told = {"size": each["Size"], "LastModified": each["LastModified"]}
                yield f"{self._bucket}/{each['Key']}", told
            if not page.get("IsTruncated"):
                return
            after = {"ContinuationToken": page["NextContinuationToken"]}

    def uploads(self) -> Iterator[Leftover]:
        """Yield uploads by parts that nobody has completed or aborted: a bucket keeps them."""
        after: dict[str, str] = {}
        while True:
            page = self._call("list_multipart_uploads", Prefix=self._prefix, **after)
            for upload in page.get("Uploads", ()):
                yield Leftover(
                    area=UPLOADS,
                    name=f"{upload['UploadId']}/{upload['Key']}",
                    size_bytes=0,
                    changed_at=upload["Initiated"].timestamp(),
                )
            if not page.get("IsTruncated"):
                return
            after = {
                "KeyMarker": page["NextKeyMarker"],
                "UploadIdMarker": page["NextUploadIdMarker"],
            }

    def abort(self, upload: str) -> None:
        """Forget an upload with all its parts."""
        upload_id, _, key = upload.partition("/")
        with contextlib.suppress(FileNotFoundError):  # completed or aborted meanwhile
            self._call("abort_multipart_upload", Key=key, UploadId=upload_id)

    def _key(self, path: str) -> str:
        key: str = self._fs.split_path(path)[1]
        return key

    def _call(self, method: str, **arguments: Any) -> Any:
        return self._fs.call_s3(method, Bucket=self._bucket, **arguments)


def part_bytes_of(size_bytes: int, at_least: int) -> int:
    """Return how long parts are: so long that no more are needed than there may be."""
    needed = math.ceil(size_bytes / _MOST_PARTS)
    return at_least if needed <= at_least else math.ceil(needed / _MIB) * _MIB


def in_parts(buffers: Sequence[Buffer], part_bytes: int) -> Iterator[bytes]:
    """Yield the bytes of all buffers in parts of equal length, the last one excepted."""
    held: list[memoryview] = []
    room = part_bytes
    for piece in pieces(buffers):
        while piece:
            held.append(piece[:room])
            room -= len(held[-1])
            piece = piece[len(held[-1]) :]
            if room == 0:
                yield b"".join(held)
                held, room = [], part_bytes
    if held:
        yield b"".join(held)
