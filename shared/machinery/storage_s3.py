"""The same files in a bucket, of Amazon or of any server that speaks S3."""

import contextlib
import hashlib
import io
import shutil
from collections.abc import Generator, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, PartialCredentialsError

from shared.machinery.settings import ConfigurationError, Settings
from shared.machinery.storage import Served, Stored, checked
from shared.vocabulary.errors import WanfarmError

_CHUNK: Final = 1 << 20
_LINK_S: Final = 900  # to begin a transfer in, not to end it; who comes again gets a new one
_MISSING: Final = frozenset({"404", "NoSuchKey", "NotFound"})
_FULL: Final = frozenset({"QuotaExceeded", "XMinioStorageFull", "507", "InsufficientStorage"})
_REMEDIES: Final = {
    "NoSuchBucket": "Make the bucket that WANFARM_S3_BUCKET names, or correct the name",
    "InvalidAccessKeyId": "Correct AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "Correct AWS_SECRET_ACCESS_KEY",
    "AccessDenied": "Let the key of AWS_ACCESS_KEY_ID list, get, put and delete there",
    "403": "Let the key of AWS_ACCESS_KEY_ID list, get, put and delete there",
    "PermanentRedirect": "Correct WANFARM_S3_REGION",
    "AuthorizationHeaderMalformed": "Correct WANFARM_S3_REGION",
}


class S3Storage:
    """Files under a prefix of a bucket; everything below that prefix is the farm's."""

    def __init__(self, settings: Settings) -> None:
        """Prepare a client; nothing connects yet.

        Raises:
            ConfigurationError: when there are no credentials.
        """
        session = Session(region_name=settings.s3_region)
        _check_credentials(session)
        self._s3: Any = session.client(
            "s3",
            endpoint_url=settings.s3_endpoint,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path" if settings.s3_endpoint else "auto"},
                request_checksum_calculation="when_required",  # older servers know no other
                connect_timeout=5,
                read_timeout=30,
                retries={"mode": "standard", "total_max_attempts": 3},
                max_pool_connections=settings.api_threads,
            ),
        )
        self._bucket, self._prefix = settings.s3_bucket, settings.s3_prefix
        address = urlsplit(self.locate("probe/write", Served("text/plain", "probe")))
        self.origin = f"{address.scheme}://{address.netloc}"

    def put(self, source: Path, key: str) -> Stored:
        """Send a file, a large one in parts; the server checks the sha256 of each."""
        with source.open("rb") as content:
            return self._store(content, key)

    def put_bytes(self, content: bytes, key: str) -> Stored:
        return self._store(io.BytesIO(content), key)

    def _store(self, content: io.BufferedReader | io.BytesIO, key: str) -> Stored:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
        size = content.seek(0, io.SEEK_END)
        content.seek(0)
        with _asking():
            self._s3.upload_fileobj(
                content, self._bucket, self._at(key), ExtraArgs={"ChecksumAlgorithm": "SHA256"}
            )
        return Stored(key, size, digest)

    def exists(self, key: str) -> bool:
        return self._ask("head_object", key) is not None

    def names(self, prefix: str) -> list[str]:
        folder = f"{self._at(prefix)}/"
        found: list[str] = []
        for page in self._pages("list_objects_v2", Prefix=folder, Delimiter="/"):
            found += [one["Key"] for one in page.get("Contents", ())]
            found += [one["Prefix"] for one in page.get("CommonPrefixes", ())]
        return sorted(name.removeprefix(folder).rstrip("/") for name in found)

    def read(self, key: str) -> bytes | None:
        with _asking():
            found = self._ask("get_object", key)
            return None if found is None else found["Body"].read()

    def sha256(self, key: str) -> str | None:
        digest = hashlib.sha256()
        with _asking():
            found = self._ask("get_object", key)
            if found is None:
                return None
            for chunk in found["Body"].iter_chunks(_CHUNK):
                digest.update(chunk)
        return digest.hexdigest()

    def age_s(self, key: str) -> float | None:
        found = self._ask("head_object", key)
        if found is None:
            return None
        now = parsedate_to_datetime(found["ResponseMetadata"]["HTTPHeaders"]["date"])
        return (now - found["LastModified"]).total_seconds()

    def at_hand(self, key: str, folder: Path) -> Path | None:
        target = folder / key.rpartition("/")[2]
        with _asking():
            found = self._ask("get_object", key)
            if found is None:
                return None
            with target.open("wb") as out:
                shutil.copyfileobj(found["Body"], out, _CHUNK)
        return target

    def locate(self, key: str, served: Served) -> str:
        kind = "attachment" if served.attached else "inline"
        asked = {
            "Bucket": self._bucket,
            "Key": self._at(key),
            "ResponseContentType": served.media_type,
            "ResponseContentDisposition": f"{kind}; filename={served.name}",
            "ResponseCacheControl": "private, max-age=31536000, immutable",
        }
        with _asking():
            verb = "head_object" if served.headers_only else "get_object"
            return self._s3.generate_presigned_url(verb, asked, _LINK_S)

    def drop_unfinished(self, older_than_s: float) -> int:
        before = datetime.now(UTC) - timedelta(seconds=older_than_s)
        left = [
            one
            for page in self._pages("list_multipart_uploads", Prefix=self._prefix)
            for one in page.get("Uploads", ())
            if one["Initiated"] < before
        ]
        with _asking():
            for one in left:
                names = {name: one[name] for name in ("Key", "UploadId")}
                self._s3.abort_multipart_upload(Bucket=self._bucket, **names)
        return len(left)

    def free_bytes(self) -> None:
        return None

    def delete_tree(self, prefix: str) -> None:
        for page in self._pages("list_objects_v2", Prefix=f"{self._at(prefix)}/"):
            keys = [{"Key": one["Key"]} for one in page.get("Contents", ())]
            if keys:
                with _asking():
                    told = self._s3.delete_objects(
                        Bucket=self._bucket, Delete={"Objects": keys, "Quiet": True}
                    )
                for fault in told.get("Errors", ()):
                    raise _refusal(fault["Code"])

    def delete(self, key: str) -> None:
        self._ask("delete_object", key)

    def _at(self, key: str) -> str:
        return self._prefix + checked(key)

    def _ask(self, verb: str, key: str) -> dict[str, Any] | None:
        """Do something with one object; None when it is not there."""
        with _asking():
            try:
                return getattr(self._s3, verb)(Bucket=self._bucket, Key=self._at(key))
            except ClientError as err:
                if _code(err) in _MISSING:
                    return None
                raise

    def _pages(self, verb: str, **asked: str) -> Iterator[dict[str, Any]]:
        with _asking():
            yield from self._s3.get_paginator(verb).paginate(Bucket=self._bucket, **asked)


def _check_credentials(session: Session) -> None:
    wanted = "WANFARM_S3_BUCKET needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    try:
        found = session.get_credentials()
    except PartialCredentialsError as err:
        raise ConfigurationError(f"{wanted}. One of them is missing.") from err
    if found is None:
        raise ConfigurationError(f"{wanted}, or a file that AWS_SHARED_CREDENTIALS_FILE names.")


@contextlib.contextmanager
def _asking() -> Generator[None]:
    """Tell people what the store's own errors mean."""
    try:
        yield
    except ClientError as err:
        raise _refusal(_code(err)) from err
    except BotoCoreError as err:
        raise _refusal(type(err).__name__, "Start it, or correct WANFARM_S3_ENDPOINT") from err


def _code(err: ClientError) -> str:
    told: Any = err.response
    return told.get("Error", {}).get("Code", "no reason given")


def _refusal(code: str, remedy: str = "Look at the store's own log") -> WanfarmError:
    if code in _FULL:
        message = "The result store is full. Free space on it, then retry."
        return WanfarmError("storage_full", message, retry_after_s=60)
    remedy = _REMEDIES.get(code, remedy)
    message = f"The result store refused ({code}). {remedy}, then retry."
    return WanfarmError("not_ready", message, retry_after_s=60)
