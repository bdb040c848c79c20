"""Owns what is too large for a table: bytes put, got, listed and deleted by key, in a folder or an S3 bucket."""

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
import orjson
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError, NotFoundError
from obstore.store import LocalStore, S3Store

from libs import errors
from libs.config import Secret

# A safe subset of what both file systems and S3 take; nothing that leads out of the folder.
_KEY = re.compile(r"(?!\.)[A-Za-z0-9_=@.-]+(?:/(?!\.)[A-Za-z0-9_=@.-]+)*")
_MOST_KEY_LENGTH = 512
# Other errors, as a refused permission, are faults of the setup that waiting does not mend.
_AWAY = (GenericError, OSError)


@dataclass(frozen=True)
class ObjectStoreConfig:
    """`file:///folder` or `s3://bucket/prefix`.

    `object_store_options` is a JSON object of obstore's S3 options (`endpoint`, `region`, `access_key_id`,
    `secret_access_key`, …); what is missing comes from the machine's own AWS settings.
    """

    object_store_url: str
    object_store_options: Secret | None = field(default=None, repr=False)

    def open(self) -> "ObjectStore":
        """Opens the store; raises ValueError for a URL or options that cannot be used."""
        options = self.object_store_options
        parsed = orjson.loads(options.reveal()) if options else {}
        if not isinstance(parsed, dict):
            raise ValueError("object_store_options must be a JSON object")  # noqa: TRY004 — a fault of the text
        return ObjectStore.open(self.object_store_url, parsed)


class ObjectStore:
    """One folder or one bucket's prefix. Keys are 1 to 512 of letters, digits and `_=@.-`, in parts between slashes."""

    def __init__(self, store: LocalStore | S3Store) -> None:
        self._store = store

    @classmethod
    def open(cls, url: str, options: Mapping[str, object] | None = None) -> "ObjectStore":
        """Returns the store at `file:///folder` (made when missing, for this user only) or `s3://bucket/prefix`.

        `options` are obstore's S3 options, for example `{"endpoint": …, "region": …}`; `allow_http` permits an
        endpoint without TLS. Raises ValueError for any other URL. Nothing is sent yet.
        """
        parts = urlsplit(url)
        if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
            folder = Path(unquote(parts.path))
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return cls(LocalStore(folder, automatic_cleanup=True))
        if parts.scheme == "s3" and parts.netloc:
            settings = dict(options or {})
            allow_http = bool(settings.pop("allow_http", False))
            try:
                store = S3Store(
                    parts.netloc,
                    prefix=unquote(parts.path).strip("/") or None,
                    config=settings,  # type: ignore[arg-type]
                    client_options={"timeout": "30s", "connect_timeout": "5s", "allow_http": allow_http},
                    retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=20)},
                )
            except BaseError as error:
                raise ValueError(f"the S3 options cannot be used: {error}") from error
            return cls(store)
        raise ValueError("an object store is file:///folder or s3://bucket/prefix")

    async def put(self, key: str, content: bytes, *, replace: bool = True) -> None:
        """Stores the content whole or not at all; large ones go to S3 in parts.

        Raises `conflict("object_exists")` when it is there already and `replace` is False.
        """
        try:
            await obstore.put_async(self._store, _checked(key), content, mode="overwrite" if replace else "create")
        except AlreadyExistsError as error:
            raise errors.conflict("object_exists", "There is a file under this key already.") from error
        except _AWAY as error:
            raise _away() from error

    async def get(self, key: str) -> bytes:
        """Returns the content; raises `not_found("object_not_found")`."""
        try:
            found = await obstore.get_async(self._store, _checked(key))
            return bytes(await found.bytes_async())
        except (NotFoundError, FileNotFoundError) as error:
            raise errors.not_found("object_not_found", "There is no file under this key.") from error
        except _AWAY as error:
            raise _away() from error

    async def delete(self, key: str) -> None:
        """Deletes the content; also fine when there is none."""
        try:
            await obstore.delete_async(self._store, _checked(key))
        except (NotFoundError, FileNotFoundError):
            return
        except _AWAY as error:
            raise _away() from error

    async def list(self, prefix: str = "") -> AsyncIterator[str]:
        """Yields the keys under a prefix that ends at a slash, in no order; all keys without a prefix."""
        try:
            async for found in obstore.list(self._store, _checked(prefix.rstrip("/")) if prefix else None):
                for entry in found:
                    yield entry["path"]
        except _AWAY as error:
            raise _away() from error


def _checked(key: str) -> str:
    if len(key) > _MOST_KEY_LENGTH or _KEY.fullmatch(key) is None:
        raise ValueError(f"not a key of an object store: {key!r}")
    return key


def _away() -> errors.GatefoldError:
    return errors.unavailable("object_store_unavailable", "The file store is away for a moment.", 5)
