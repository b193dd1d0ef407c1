"""What the clients of object storage raise, told in one line of ours each. Part of jobs.storage."""

from __future__ import annotations

import re
import sys
from typing import Literal

from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, PreconditionError

from jobs.errors import (
    ArchivedObjectError,
    ConflictError,
    CredentialsError,
    DeniedError,
    EncryptionError,
    MissingBucketError,
    MissingObjectError,
    RefusedError,
    StorageError,
)

_CODE = re.compile(
    r"<Code>([\w.-]+)</Code>|Unable to parse ExceptionName: ([\w.-]+)|AWS Error (?!UNKNOWN)([\w.-]+)"
    r"|\bErrorCode:\s?([\w.-]+)"
)
"""The code of S3, GCS and Azure in XML, and as pyarrow writes it; some of KMS have a dot."""
_DENIED = frozenset(
    {
        "AccessDenied",
        "ACCESS_DENIED",
        "AccessDeniedException",
        "AllAccessDisabled",
        "AuthorizationPermissionMismatch",
        "AuthorizationFailure",
        "InsufficientAccountPermissions",
    }
)
_WRONG_KEY = frozenset({"SignatureDoesNotMatch", "SIGNATURE_DOES_NOT_MATCH", "AuthenticationFailed"})
_ARCHIVED = frozenset({"InvalidObjectState", "INVALID_OBJECT_STATE", "BlobArchived"})
_SPENT = re.compile(r"Expired-?Token(Exception)?|TokenRefreshRequired|InvalidToken|RequestTimeTooSkewed|EXPIRED_TOKEN")
"""S3's codes, where pyarrow and Azure may write them, that no renewal by a client has helped against."""
_NO_CREDENTIALS = frozenset(
    {
        "NoCredentialsError",
        "PartialCredentialsError",
        "CredentialRetrievalError",
        "TokenRetrievalError",
        "UnauthorizedSSOTokenError",
        "SSOTokenLoadError",
        "DefaultCredentialsError",
        "RefreshError",
        "ClientAuthenticationError",
        "CredentialUnavailableError",
    }
)
"""Exceptions of boto, google-auth and Microsoft's client, by name: importing them takes longer than most commands."""
_NO_CREDENTIALS_FOUND = "Received None from session.get_credentials"
"""What obstore says where boto3 finds none."""
_KEY_NAMES = {"s3": "AWS_ACCESS_KEY_ID", "gs": "GOOGLE_APPLICATION_CREDENTIALS", "az": "AZURE_STORAGE_ACCOUNT_KEY"}
_SOURCES = {
    "s3": "the AWS_* variables, a profile or a role",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or log in by gcloud",
    "az": "AZURE_STORAGE_ACCOUNT_KEY, or log in by az",
}
"""Where the credentials of a store come from, by scheme."""
Access = Literal["read", "list", "write", "delete"]
"""What is done with an object, or with a folder of them."""
_PERMISSIONS: dict[str, dict[Access, str]] = {
    "s3": {
        # Without s3:ListBucket, S3 refuses to say that an object is not there.
        "read": "the permission s3:GetObject (or s3:ListBucket, if nothing is there)",
        "list": "the permission s3:ListBucket",
        "write": "the permission s3:PutObject",
        "delete": "the permission s3:DeleteObject",
    },
    "gs": {
        "read": "the permission storage.objects.get",
        "list": "the permission storage.objects.list",
        "write": "the permission storage.objects.create (and storage.objects.delete, to replace what is there)",
        "delete": "the permission storage.objects.delete",
    },
    "az": {
        "read": "the role Storage Blob Data Reader",
        "list": "the role Storage Blob Data Reader",
        "write": "the role Storage Blob Data Contributor",
        "delete": "the role Storage Blob Data Contributor",
    },
}
_ODD_PATH = re.compile(r'(?:Error parsing Path|: Path) "(.*?)"(?=:| contained)')
"""How obstore names a key that its paths cannot hold."""
CLIENT_ERRORS = (BaseError, OSError, ValueError)
"""What obstore and pyarrow raise."""


_CLIENTS_OWN = {
    "botocore.exceptions": ("BotoCoreError", "ClientError", "HTTPClientError"),
    "google.auth.exceptions": ("GoogleAuthError",),
    "azure.core.exceptions": ("AzureError",),
}
"""What other clients raise, by the module that has it."""


def list_client_errors() -> tuple[type[Exception], ...]:
    """Lists what obstore, pyarrow, boto3, google-auth and Microsoft's client raise.

    A client that nobody has imported raises nothing: to import all of them at the first missing object would take
    longer than most commands.
    """
    loaded = [(sys.modules[module], names) for module, names in _CLIENTS_OWN.items() if module in sys.modules]
    return (*CLIENT_ERRORS, *(getattr(module, name) for module, names in loaded for name in names))


def is_odd_path(error: Exception) -> bool:
    """Tells whether obstore raised this because its paths cannot hold a key."""
    return _ODD_PATH.search(str(error)) is not None


def translate_error(error: Exception, uri: str, *, needs: Access = "read") -> StorageError:
    """Translates any client's exception, or pyarrow's, into one line of ours.

    Args:
        error: what the client raised.
        uri: what was asked for.
        needs: what was done there, so that a lack of the permission can name it.
    """
    code, message = find_code(error), str(error).splitlines()[0] if str(error) else type(error).__name__
    scheme = uri.split(":", 1)[0]
    key_name = _KEY_NAMES.get(scheme, _KEY_NAMES["s3"])
    if code in ("NoSuchBucket", "NO_SUCH_BUCKET", "ContainerNotFound"):
        return MissingBucketError(f"bucket of {uri} does not exist: create it or correct the name")
    if odd := _ODD_PATH.search(str(error)):
        return RefusedError(
            f"{uri}: the client of this storage cannot name the object {odd[1]!r}, whose key has an empty or dotted "
            "part: rename or delete it"
        )
    if isinstance(error, FileNotFoundError) or code in ("NoSuchKey", "NO_SUCH_KEY", "BlobNotFound", "404"):
        return MissingObjectError(f"{uri} does not exist")
    if spent := _SPENT.search(f"{code} {error}"):
        return CredentialsError(f"the credentials for {uri} have run out ({spent[0]}): renew them, or set the clock")
    if type(error).__name__ in _NO_CREDENTIALS or _NO_CREDENTIALS_FOUND in str(error):
        return CredentialsError(f"no credentials found for {uri}: set {_SOURCES.get(scheme, _SOURCES['s3'])}")
    if code == "InvalidAccessKeyId":
        return CredentialsError(f"the storage of {uri} does not know these credentials ({code}): set {key_name}")
    if code in _WRONG_KEY:
        return DeniedError(f"the storage of {uri} does not accept these credentials ({code}): check {key_name}")
    if refusal := explain_refusal(error, code, uri, needs=needs):
        return refusal
    if isinstance(error, (AlreadyExistsError, PreconditionError)):
        return make_conflict(uri)
    detail = re.sub(r"<[?]?xml.*", "", message)[:300].strip()
    return StorageError(f"{uri} could not be reached: {detail}{f' {code}' if code and code not in detail else ''}")


def make_conflict(place: object) -> ConflictError:
    """Makes the error of a conditional write to an object, or a local file, that has lost."""
    return ConflictError(f"{place} was written by someone else in the meantime")


def explain_refusal(error: Exception, code: str, uri: str, *, needs: Access) -> StorageError | None:
    """Says why the storage refuses an object that it has; None where the error is of another kind.

    Only a refusal that speaks of permissions, or of nothing, is told as a lack of them.
    """
    if code in _ARCHIVED:
        return ArchivedObjectError(f"{uri} is archived ({code}): restore it from cold storage, then run again")
    if "kms" in code.lower() or (code in _DENIED and re.search(r"kms:\w+", str(error))):
        return EncryptionError(f"{uri} is encrypted with a KMS key that cannot be used ({code}): {read_message(error)}")
    if code in _DENIED or isinstance(error, PermissionError):
        named = re.search(r"not authorized to perform: (\w+:\w+)", str(error))  # as AWS says it
        lacked = f"the permission {named[1]}" if named else name_permission(uri, needs)
        who = "this user lacks" if uri.startswith("file:") else "the credentials lack"
        return DeniedError(f"access to {uri} was denied: {who} {lacked}")
    if code == "403" or (isinstance(error, PermissionDeniedError) and not code):
        return DeniedError(
            f"access to {uri} was denied (403, no reason given): perhaps the credentials lack "
            f"{name_permission(uri, needs)}"
        )
    if isinstance(error, PermissionDeniedError) or read_status(error) == 403:
        return RefusedError(f"the storage refuses {uri} ({code}): {read_message(error)}")
    return None


def name_permission(uri: str, needs: Access) -> str:
    """Names the permission that an access needs, in the words of the storage's own policies."""
    return _PERMISSIONS.get(uri.split("://", 1)[0], {}).get(needs, f"the permission to {needs}")


def read_message(error: Exception) -> str:
    """Returns in one line what the storage said with its code, or else the error's first line."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        said = str(response.get("Error", {}).get("Message", ""))
    else:
        found = re.search(r"<Message>([^<]+)</Message>|ExceptionName: \S+ Message: (.+)", str(error))
        said = found[1] or found[2] if found else str(error).split("\n", 1)[0]
    return " ".join(said.split())[:300]


def read_status(error: Exception) -> int | None:
    """Returns the HTTP status that an error of boto or pyarrow carries; None where it carries none."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    found = re.search(r"HTTP status (\d+)", str(error))
    return int(found[1]) if found else None


def find_code(error: Exception) -> str:
    """Returns S3's error code, or an empty string."""
    response = getattr(error, "response", None)  # boto's; other libraries mean something else by the name
    if isinstance(response, dict):
        return str(response.get("Error", {}).get("Code", ""))
    found = _CODE.search(str(error))
    return next((code for code in found.groups() if code), "") if found else ""
