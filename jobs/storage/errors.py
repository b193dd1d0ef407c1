"""What the clients of object storage raise, told in one line of ours each. Part of jobs.storage."""

from __future__ import annotations

import re

from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, PreconditionError

from jobs.errors import (
    ConflictError,
    CredentialsError,
    DeniedError,
    MissingBucketError,
    MissingObjectError,
    StorageError,
)

_CODE = re.compile(r"<Code>(\w+)</Code>")
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
    }
)
"""boto's exceptions, by name: importing botocore takes longer than most commands."""
CLIENT_ERRORS = (BaseError, OSError, ValueError)
"""What obstore and pyarrow raise."""


def list_s3_errors() -> tuple[type[Exception], ...]:
    """Lists what obstore, pyarrow and boto3 raise."""
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

    return (*CLIENT_ERRORS, BotoCoreError, ClientError, HTTPClientError)


def translate_error(error: Exception, uri: str) -> StorageError:
    """Translates any client's exception, or pyarrow's, into one line of ours."""
    code, message = find_code(error), str(error).splitlines()[0] if str(error) else type(error).__name__
    if code == "NoSuchBucket":
        return MissingBucketError(f"bucket of {uri} does not exist: create it or correct the name")
    if isinstance(error, FileNotFoundError) or code in ("NoSuchKey", "404"):
        return MissingObjectError(f"{uri} does not exist")
    if spent := _SPENT.search(f"{code} {error}"):
        return CredentialsError(f"the credentials for {uri} have run out ({spent[0]}): renew them, or set the clock")
    if type(error).__name__ in _NO_CREDENTIALS:
        return CredentialsError(f"no credentials found for {uri}: set the AWS_* variables, a profile or a role")
    if code == "InvalidAccessKeyId":
        return CredentialsError(f"the storage of {uri} does not know these credentials ({code}): set AWS_ACCESS_KEY_ID")
    if code == "SignatureDoesNotMatch":
        return DeniedError(f"the storage of {uri} does not accept these credentials ({code}): check AWS_ACCESS_KEY_ID")
    if isinstance(error, (PermissionDeniedError, PermissionError)) or code in ("AccessDenied", "403"):
        return DeniedError(f"access to {uri} was denied: the credentials lack the permission")
    if isinstance(error, (AlreadyExistsError, PreconditionError)):
        return ConflictError(f"{uri} was written by someone else in the meantime")
    detail = re.sub(r"<[?]?xml.*", "", message)[:300].strip()
    return StorageError(f"{uri} could not be reached: {detail}{f' {code}' if code and code not in detail else ''}")


def find_code(error: Exception) -> str:
    """Returns S3's error code, or an empty string."""
    response = getattr(error, "response", None)  # boto's; other libraries mean something else by the name
    if isinstance(response, dict):
        return str(response.get("Error", {}).get("Code", ""))
    found = _CODE.search(str(error))
    return found[1] if found else ""
